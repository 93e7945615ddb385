"""Data that needs no download: handwritten digits in motion.

The digits are the 1,797 scans of 8x8 pixels that scikit-learn ships (Alpaydin & Kaynak, "Optical Recognition of
Handwritten Digits", UCI 1998). Each is set in motion over a textured background, seen by a shaking, noisy camera,
and written as a real H.264 file. Two labels: the motion and the digit.

One frame says nothing about the motion: space and scale are circles (what leaves on one side enters on the other, what
has grown to the largest size starts again at the smallest), and the state at any instant is uniform on them for every
motion. Time is needed to tell the eight apart.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unveil.errors import UserError

MOTIONS = ("clockwise", "counterclockwise", "down", "growing", "left", "right", "shrinking", "up")
SPLITS = ("unlabelled", "labelled", "test")

STATE_FILE = "moving-digits.json"
VERSION = 1  # of the generator; raised when the same parameters give other pixels
FPS = 8
POOLS = {"unlabelled": (0.0, 0.6), "labelled": (0.6, 0.8), "test": (0.8, 1.0)}  # share of each digit's scans
SIZES = (0.4, 0.8)  # side of the digit's 8x8 grid, in sides of the frame; scale is a circle from the one to the other
TRAVEL = (0.5, 1.1)  # turns of the circle (of space, angle or scale) in one clip
RADIUS = 0.22  # of circling, in sides of the frame
SHAKE = 0.02  # standard deviation of the camera's offset, in sides of the frame
NOISE = 0.03  # standard deviation of the camera's noise, in units of the range of values


@dataclass(frozen=True)
class Parameters:
    """What the pixels depend on: the same parameters give the same clips, whatever the number of workers."""

    unlabelled: int
    labelled: int
    test: int
    frames: int
    size: int
    seed: int


@dataclass(frozen=True)
class Clip:
    """One file to be made; all that is random about it is drawn from (seed, split, index)."""

    path: str
    split: str
    index: int
    motion: str
    digit: int
    scan: int


def moving_digits(
    out: Path | str,
    *,
    unlabelled: int = 2000,
    labelled: int = 160,
    test: int = 400,
    frames: int = 16,
    size: int = 32,
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Write the moving digits as H.264 files, in a layout that needs no list file.

    ```
    OUT/unlabelled/00000.mp4          for pre-training
    OUT/labelled/<motion>/00000.mp4   for fine-tuning
    OUT/test/<motion>/00000.mp4       the same motions, with scans of digits that are nowhere else
    OUT/digits.csv                    the digit of each labelled (split train) and test file
    OUT/moving-digits.json            the parameters, and a digest of the files
    ```

    Motions and digits are balanced, and the three splits share no scan. An interrupted call goes on where it stopped;
    a complete folder is checked and left as it is.

    Args:
        out: a new or empty folder, or one that an earlier call wrote.
        unlabelled: clips without label.
        labelled: clips for fine-tuning.
        test: clips for evaluation.
        frames: frames of a clip; they are played at 8 a second.
        size: height and width, in pixels; even, as H.264 wants.
        seed: of everything random.
        workers: threads; one per core when not given.

    Returns:
        The number of clips written: 0 when the folder was complete.

    Raises:
        UserError: a parameter makes no clip, or `out` holds other things, other parameters or changed files.
    """
    parameters = Parameters(unlabelled, labelled, test, frames, size, seed)
    _check(parameters)
    out = Path(out)
    console = Console(stderr=True)
    state = _open(out, parameters)

    scans, digits = _scans()
    clips = [clip for split in SPLITS for clip in _plan(split, parameters, digits)]
    missing = [clip for clip in clips if not (out / clip.path).exists()]
    if missing:
        for folder in {(out / clip.path).parent for clip in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            task = progress.add_task("moving digits", total=len(clips), completed=len(clips) - len(missing))
            jobs = [pool.submit(_make, out, clip, scans[clip.scan], parameters) for clip in missing]
            try:
                for job in jobs:
                    job.result()
                    progress.advance(task)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    if missing or not (out / "digits.csv").exists():
        _write_digits(out, clips)
    digest = _digest(out, clips)
    if state.get("sha256") not in (None, digest):
        raise UserError(
            f"{out}: files have changed since they were written (they do not fit the digest in {STATE_FILE}). "
            "Delete the folder and make it again, or name another --out."
        )
    _write_json(out / STATE_FILE, {**_state(parameters), "clips": len(clips), "sha256": digest})
    console.print(f"{out}: {len(missing)} clips written" if missing else f"{out}: complete, nothing to do")
    return len(missing)


BUILTIN = {"moving-digits": moving_digits}


def render(
    scan: NDArray[np.floating], motion: str, rng: np.random.Generator, frames: int = 16, size: int = 32
) -> NDArray[np.uint8]:
    """Draw one clip.

    Args:
        scan: the ink, [8, 8] in [0, 1].
        motion: one of `MOTIONS`.
        rng: where the place, size, speed, colours, texture, shake and noise come from.
        frames, size: of the clip.

    Returns:
        uint8 [frames, size, size, 3], RGB.
    """
    y, x, side = _trajectory(motion, rng, frames)
    shake = _shake(rng, frames)
    rows = _interpolation(y + shake[:, 0], side, size)
    columns = _interpolation(x + shake[:, 1], side, size)
    ink = np.clip(np.einsum("tih,hw,tjw->tij", rows, scan, columns), 0, 1)[..., None]

    # Any two colours, the digit's the brighter.
    paper, pen = rng.uniform(0.05, 0.35, 3), rng.uniform(0.65, 1.0, 3)
    pixels = paper + rng.uniform(0.03, 0.08) * _texture(rng, shake, size)
    pixels = pixels * (1 - ink) + pen * ink
    pixels += NOISE * rng.standard_normal(pixels.shape)
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def _trajectory(motion: str, rng: np.random.Generator, frames: int) -> tuple[NDArray, NDArray, NDArray]:
    """Row, column (sides of the frame, on a circle of length 1) and side of the digit, each [frames]."""
    centre_y, centre_x, angle, scale = rng.random(4)
    # A speed that swells and ebbs within the clip but never turns: its integral, from 0 to `travel`.
    travel = rng.uniform(*TRAVEL)
    time = np.linspace(0, 1, frames)
    depth, phase = rng.uniform(0, 0.7), rng.random()
    wave = np.sin(2 * np.pi * (time + phase)) - np.sin(2 * np.pi * phase)
    way = travel * (time + depth * wave / (2 * np.pi))

    y, x = np.full(frames, centre_y), np.full(frames, centre_x)
    if motion in ("left", "right"):
        x = x + (way if motion == "right" else -way)
    elif motion in ("up", "down"):
        y = y + (way if motion == "down" else -way)
    elif motion in ("clockwise", "counterclockwise"):
        turn = 2 * np.pi * (angle + (way if motion == "clockwise" else -way))
        y, x = (
            y + RADIUS * np.sin(turn),
            x + RADIUS * np.cos(turn),
        )  # rows count downwards: a growing angle is clockwise
    elif motion in ("growing", "shrinking"):
        scale = scale + (way if motion == "growing" else -way)
    else:
        raise ValueError(f"{motion!r} is not one of {MOTIONS}")
    low, high = SIZES
    return y, x, np.broadcast_to(low * (high / low) ** np.mod(scale, 1), frames)


def _shake(rng: np.random.Generator, frames: int) -> NDArray:
    """Offset of the camera [frames, 2]: an autoregressive wander, the same for digit and background."""
    keep = 0.6
    offset = np.empty((frames, 2))
    offset[0] = rng.standard_normal(2)
    for t in range(1, frames):
        offset[t] = keep * offset[t - 1] + (1 - keep**2) ** 0.5 * rng.standard_normal(2)
    return SHAKE * offset


def _interpolation(centre: NDArray, side: NDArray, size: int) -> NDArray:
    """Weights [frames, size, 8] that draw 8 samples around `centre` (on a circle) over `size` pixels, linearly."""
    pixel = (np.arange(size) + 0.5) / size
    distance = np.mod(pixel - centre[:, None] + 0.5, 1) - 0.5
    place = distance / side[:, None] * 8 + 3.5
    return np.clip(1 - np.abs(place[..., None] - np.arange(8)), 0, None)


def _texture(rng: np.random.Generator, shake: NDArray, size: int) -> NDArray:
    """Coloured noise of variance 1, [frames, size, size, 3], moved by `shake`.

    It is made in the frequency domain, where a shift by a fraction of a pixel is an exact change of phase.
    """
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None]
    radius = np.hypot(fy, fx)
    amplitude = np.where(radius > 0, np.maximum(radius, 1), np.inf) ** -rng.uniform(1.0, 2.0)
    spectrum = np.fft.rfft2(rng.standard_normal((3, size, size))) * amplitude
    moved = spectrum * np.exp(-2j * np.pi * (fy * shake[:, 0, None, None] + fx * shake[:, 1, None, None]))[:, None]
    texture = np.fft.irfft2(moved, s=(size, size))
    return np.moveaxis(texture / texture.std(), 1, -1)


def _scans() -> tuple[NDArray, NDArray]:
    """scikit-learn's scans [1797, 8, 8] in [0, 1] and their digits [1797]."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    return np.asarray(images).reshape(-1, 8, 8) / 16, np.asarray(digits)


def _plan(split: str, parameters: Parameters, digits: NDArray) -> Iterator[Clip]:
    """The clips of a split: motions and digits balanced, in an order that tells neither."""
    seed, which = parameters.seed, SPLITS.index(split)
    count: int = getattr(parameters, split)
    order = np.random.default_rng([seed, which]).permutation(count)
    low, high = POOLS[split]
    pools = []
    for digit in range(10):
        # The permutation depends on the seed alone, so that the pools of the splits are parts of one order.
        own = np.random.default_rng([seed, len(SPLITS), digit]).permutation(np.flatnonzero(digits == digit))
        pools.append(own[int(low * len(own)) : int(high * len(own))])
    for index, place in enumerate(order):
        # Rounds of every motion with every digit; a last, partial round goes along diagonals, to meet all digits early.
        diagonal = place % 8 if place >= count - count % 80 else 0
        motion, digit, turn = MOTIONS[place % 8], int((place // 8 + diagonal) % 10), int(place // 80 * 8 + place % 8)
        scan = int(pools[digit][turn % len(pools[digit])])
        folder = split if split == "unlabelled" else f"{split}/{motion}"
        yield Clip(f"{folder}/{index:05d}.mp4", split, index, motion, digit, scan)


def _make(out: Path, clip: Clip, scan: NDArray, parameters: Parameters) -> None:
    """Draw and write one file; it appears under its name only when it is whole."""
    rng = np.random.default_rng([parameters.seed, SPLITS.index(clip.split), clip.index])
    pixels = render(scan, clip.motion, rng, parameters.frames, parameters.size)
    path = out / clip.path
    part = path.with_suffix(".part")
    write_h264(part, pixels)
    part.replace(path)


def write_h264(path: Path, pixels: NDArray[np.uint8], fps: int = FPS) -> None:
    """Write RGB frames, uint8 [T, H, W, 3] with even H and W, as H.264 in MP4; the same pixels give the same bytes."""
    # Two traps, each of which made one file in some dozens come out otherwise: swscale shares a frame among threads whose
    # dithering races, unless told threads=1; and x264's fastest routines for a machine depend on where memory happens to
    # be aligned, unless told to be independent of the processor.
    options = {"crf": "14", "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
    converter = VideoReformatter()
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for rgb in pixels:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            container.mux(stream.encode(converter.reformat(frame, format="yuv420p", threads=1)))
        container.mux(stream.encode())


def _write_digits(out: Path, clips: list[Clip]) -> None:
    """The second labelling of the same files; the scan is the group, so that no validation split divides it."""
    with (out / "digits.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for clip in clips:
            if clip.split != "unlabelled":
                split = {"labelled": "train"}.get(clip.split, clip.split)
                writer.writerow([clip.path, clip.digit, split, clip.scan])


def _digest(out: Path, clips: list[Clip]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.path.encode() + hashlib.sha256((out / clip.path).read_bytes()).digest())
    return digest.hexdigest()


def _state(parameters: Parameters) -> dict:
    return {"builtin": "moving-digits", "version": VERSION, "parameters": asdict(parameters)}


def _open(out: Path, parameters: Parameters) -> dict:
    """What an earlier call left in `out`; a new folder gets its parameters before its first clip."""
    file = out / STATE_FILE
    expected = _state(parameters)
    if file.exists():
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            found = {"version": state["version"], **state["parameters"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: not readable ({error}). Delete the folder, or name another --out.") from error
        wanted = {"version": VERSION, **asdict(parameters)}
        differ = [f"{k} is {found.get(k)}, asked for {v}" for k, v in wanted.items() if found.get(k) != v]
        if differ:
            raise UserError(
                f"{out} was made with other parameters ({'; '.join(differ)}). "
                "Give the same parameters, delete the folder, or name another --out."
            )
        return state
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out has to be a folder. Name another --out.")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty, and was not made by this command. Name a new folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(file, expected)
    return expected


def _write_json(file: Path, value: dict) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def _check(parameters: Parameters) -> None:
    for name in SPLITS:
        if getattr(parameters, name) < 0:
            raise UserError(f"--{name} {getattr(parameters, name)}: a number of clips cannot be negative.")
    if parameters.frames < 2:
        raise UserError(f"--frames {parameters.frames}: a motion needs two frames or more.")
    if parameters.size < 16 or parameters.size % 2:
        raise UserError(f"--size {parameters.size}: H.264 wants an even number of pixels, and a digit at least 16.")
    if parameters.seed < 0:
        raise UserError(f"--seed {parameters.seed}: a seed cannot be negative.")

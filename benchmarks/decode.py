"""What decoding clips costs, next to plain PyAV, torchcodec and decord: the same files, the same frames, one thread each.

    python benchmarks/decode.py --out benchmarks/results/decode.json

Videos are drawn and encoded once into --work (H.264 as x264's "medium" makes it, HEVC, VP9; at 340 x 256, 720p and 1080p);
--also adds folders of other videos. Two jobs: random clips of 16 frames, 4 apart, each from a file opened anew, as in training;
and windows of 16 frames, 4 apart, end to end over a whole file. In each round every library does the same job once, in
turn, so that a noisy machine is noisy for all; ratios are within a round. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import torch

from unveil.data import VideoReader, windows

FRAMES, STRIDE, FPS = 16, 4, 25
SPAN = FRAMES * STRIDE

X264 = {"preset": "medium"}
VIDEOS = {
    "h264 340x256": ("libx264", 340, 256, 300, X264),
    "h264 340x256, key frame each 12": ("libx264", 340, 256, 300, X264 | {"g": "12"}),
    "h264 340x256, no B-frames": ("libx264", 340, 256, 300, X264 | {"bf": "0"}),
    "h264 1280x720": ("libx264", 1280, 720, 250, X264),
    "h264 1920x1080": ("libx264", 1920, 1080, 150, X264 | {"g": "60"}),
    "hevc 340x256": ("libx265", 340, 256, 300, {"preset": "fast", "x265-params": "log-level=none:pools=none"}),
    "vp9 340x256": ("libvpx-vp9", 340, 256, 300, {"deadline": "realtime", "cpu-used": "6", "crf": "32", "b": "0"}),
}


def draw(width: int, height: int, count: int, seed: int = 0):
    """Frames [H,W,3] of a scene: a panned background, moving patches, grain. Coders find in it what they find in films."""
    rng = np.random.default_rng(seed)

    def texture(h: int, w: int) -> np.ndarray:
        out = np.zeros((h, w, 3), np.float32)
        for step in (64, 16, 4):
            coarse = torch.from_numpy(rng.random((1, 3, h // step + 2, w // step + 2), np.float32))
            fine = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic")
            out += fine[0].permute(1, 2, 0).numpy() * step**0.5
        return ((out - out.min()) / (out.max() - out.min()) * 255).astype(np.uint8)

    back = texture(height + 128, width + 256)
    patches = [texture(height // 4, width // 5) for _ in range(4)]
    places, speeds = rng.random((4, 2)), rng.normal(0, 0.004, (4, 2))
    grain = rng.integers(-3, 4, (8, height, width, 1), np.int16)
    for number in range(count):
        x = int(128 + 127 * np.sin(number / 60))
        y = int(64 + 63 * np.sin(number / 90))
        frame = back[y : y + height, x : x + width].astype(np.int16)
        for patch, place, speed in zip(patches, places, speeds, strict=True):
            i, j = ((place + speed * number) % 1 * (height - len(patch), width - patch.shape[1])).astype(int)
            frame[i : i + len(patch), j : j + patch.shape[1]] = patch
        yield (frame + grain[number % 8]).clip(0, 255).astype(np.uint8)


def encode(path: Path, codec: str, width: int, height: int, count: int, options: dict[str, str], seed: int = 0) -> None:
    partial = path.with_suffix(".partial" + path.suffix)
    with av.open(str(partial), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for array in draw(width, height, count, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    partial.rename(path)


# ---- contestants: clip(path, indices) and all windows(path) → the frames as an array


def unveil_clip(path: str, indices: list[int], fps: float) -> np.ndarray:
    with VideoReader(path) as video:
        return video.read([(index + 0.5) / fps for index in indices]).numpy()


def unveil_windows(path: str) -> int:
    return sum(1 for _ in windows(path, FRAMES, STRIDE))


def pyav_clip(path: str, indices: list[int], fps: float) -> np.ndarray:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        base, start = float(stream.time_base), stream.start_time or 0
        container.seek(int(indices[0] / fps / base) + start, stream=stream)
        wanted, found = iter(indices), []
        index = next(wanted)
        for frame in container.decode(stream):
            number = round((frame.pts - start) * base * fps)
            while index is not None and number >= index:
                found.append(frame.to_ndarray(format="rgb24", threads=1))
                index = next(wanted, None)
            if index is None:
                break
        return np.stack(found)


def pyav_windows(path: str) -> int:
    count, window = 0, []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        for number, frame in enumerate(container.decode(stream)):
            if number % STRIDE == 0:
                window.append(frame.to_ndarray(format="rgb24", threads=1))
            if len(window) == FRAMES:
                torch.from_numpy(np.stack(window))
                count, window = count + 1, []
    return count


def contestants() -> dict[str, tuple[Callable, Callable]]:
    found: dict[str, tuple[Callable, Callable]] = {
        "unveil": (unveil_clip, unveil_windows),
        "pyav": (pyav_clip, pyav_windows),
    }
    try:
        from torchcodec.decoders import VideoDecoder

        def decoder(path: str, mode: str):
            return VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)

        def clip(mode: str):
            return lambda path, indices, fps: decoder(path, mode).get_frames_at(indices).data.numpy()

        def all_windows(path: str) -> int:
            video, count = decoder(path, "approximate"), 0
            for first in range(0, len(video) - SPAN + 1, SPAN):
                video.get_frames_in_range(first, first + SPAN, STRIDE)
                count += 1
            return count

        found["torchcodec"] = (clip("approximate"), all_windows)
        found["torchcodec, exact seeks"] = (clip("exact"), all_windows)
    except (ImportError, RuntimeError, OSError) as error:  # not there; or there, and its FFmpeg is not
        print(f"torchcodec is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    try:
        import decord

        def decord_clip(path: str, indices: list[int], fps: float) -> np.ndarray:
            return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()

        def decord_windows(path: str) -> int:
            video, count = decord.VideoReader(path, num_threads=1), 0
            for first in range(0, len(video) - SPAN + 1, SPAN):
                video.get_batch(list(range(first, first + SPAN, STRIDE))).asnumpy()
                count += 1
            return count

        found["decord"] = (decord_clip, decord_windows)
    except (ImportError, RuntimeError, OSError) as error:
        print(f"decord is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def measure(files: list[Path], libraries: dict[str, tuple[Callable, Callable]], seconds: float) -> dict:
    """Rounds of one clip (and of one file's windows) until `seconds` are over; at least five."""
    rng = random.Random(0)
    lengths = {}
    for path in files:
        with VideoReader(path) as video:
            lengths[path] = (video.num_frames, video.fps)
    out: dict = {"files": len(files)}
    for job, share in (("clip", 0.6), ("windows", 0.4)):
        times: dict[str, list[float]] = {name: [] for name in libraries}
        cpu: dict[str, list[float]] = {name: [] for name in libraries}
        difference: dict[str, float] = {}
        failed: dict[str, str] = {}
        begun, number = time.perf_counter(), 0
        while number < 6 or time.perf_counter() - begun < seconds * share:
            path = files[number % len(files)] if job == "windows" else rng.choice(files)
            count, fps = lengths[path]
            first = rng.randrange(max(1, count - SPAN))
            indices = [min(first + place * STRIDE, count - 1) for place in range(FRAMES)]
            order = list(libraries)
            shift = number % len(order)
            results = {}
            for name in order[shift:] + order[:shift]:
                if name in failed:
                    continue
                clip, all_windows = libraries[name]
                since, used = time.perf_counter(), time.process_time()
                try:
                    results[name] = clip(str(path), indices, fps) if job == "clip" else all_windows(str(path))
                except Exception as error:  # a peer may not read a format: said in the results
                    failed[name] = f"{type(error).__name__}: {error}"[:200]
                    continue
                times[name].append(time.perf_counter() - since)
                cpu[name].append(time.process_time() - used)
            if job == "clip" and number < 6:
                own = results["unveil"].astype(np.int16)
                for name, frames in results.items():
                    value = float(np.abs(frames.astype(np.int16) - own).mean())
                    difference[name] = round(max(value, difference.get(name, 0.0)), 4)
            number += 1
        rows = {}
        for name in libraries:
            if name in failed:
                rows[name] = {"failed": failed[name]}
                continue
            # The first round opens libraries and fills caches.
            ratios = [mine / own for mine, own in zip(times[name][1:], times["unveil"][1:], strict=True)]
            quarters = statistics.quantiles(ratios, n=4)
            rows[name] = {
                "median_ms": round(statistics.median(times[name][1:]) * 1000, 2),
                "median_cpu_ms": round(statistics.median(cpu[name][1:]) * 1000, 2),
                "times_unveil": round(quarters[1], 3),
                "times_unveil_quartiles": [round(quarters[0], 3), round(quarters[2], 3)],
            }
            if job == "clip":
                rows[name]["mean_abs_difference"] = difference.get(name)
        out[job] = {"rounds": number - 1, "libraries": rows}
    return out


def _told(row: dict) -> str:
    if "failed" in row:
        return "–"
    return f"{row['median_ms']:.1f} ms (x{row['times_unveil']:.2f}, CPU {row['median_cpu_ms']:.1f})"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "ffmpeg of PyAV": av.ffmpeg_version_info}
    for name in ("av", "torch", "torchcodec", "decord", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/decode"), help="where the videos are kept")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="folders of other videos to add")
    parser.add_argument("--seconds", type=float, default=30, help="for each kind of video")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    sets: dict[str, list[Path]] = {}
    for name, (codec, width, height, count, options) in VIDEOS.items():
        suffix = ".webm" if "vp9" in name else ".mp4"
        path = arguments.work / (name.replace(" ", "_").replace(",", "") + suffix)
        if not path.exists():
            encode(path, codec, width, height, count, options)
        sets[name] = [path]
    for folder in arguments.also:
        kinds = (".avi", ".mp4", ".mkv", ".webm", ".mov")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
        if files:
            sets[folder.name] = files[:: max(1, len(files) // 20)][:20]
    libraries = contestants()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "job": f"{FRAMES} frames, {STRIDE} apart; one thread; times_unveil: time ÷ unveil's in the same round, median",
        "videos": {},
    }
    for name, files in sets.items():
        report["videos"][name] = measure(files, libraries, arguments.seconds)
        for job in ("clip", "windows"):
            rows = report["videos"][name][job]["libraries"]
            line = "  ".join(f"{library} {_told(row)}" for library, row in rows.items())
            print(f"{name:34s} {job:8s} {line}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

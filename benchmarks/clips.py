"""What a training clip costs next to torchcodec, decord and PyAV: 16 frames, 4 apart, of a file opened anew, cut and resized to 224.

    python benchmarks/clips.py --out benchmarks/results/clips.json
    python benchmarks/clips.py --out /tmp/clips.json --tiny  # does it run?

Videos are drawn and encoded once into --work (340 x 256, H.264 as x264's "medium" makes it), and encoded anew by `unveil data
prepare` with its own settings. In each round every library reads the same clip of the same file, of both kinds, in turn; one
thread, CPU time, ratios within a round. unveil's is the data path of VideoMAE's recipe: its signal, its clip, its crop, which it
draws itself; peers are given frames and crop. What torchvision cuts and resizes are uint8 frames, channels last, where that is
fastest; torchcodec is also given its own crop and resize (of the same sizes, at a place that it draws). Peers that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from decode import FPS, X264, encode, machine, pyav_clip
from decode import versions as libraries
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unveil.data import Manifest, Video, VideoReader
from unveil.data.boxes import Box
from unveil.data.manifest import Row
from unveil.data.picture import Pictures
from unveil.data.prepare import prepare
from unveil.data.transforms import CropFirst
from unveil.flags import build
from unveil.recipe import Data
from unveil.run import versions

SIDE, WIDTH, HEIGHT, LENGTH = 224, 340, 256, 300
FILES, TINY_FILES = 8, 2
ORIGINAL, PREPARED = "as filmed", "prepared"
OWN = "unveil"


class Case(NamedTuple):
    """A clip: of which file, drawn from which seed; and what is drawn, for libraries that do not draw themselves."""

    path: str
    seed: int
    indices: list[int]
    box: Box


def recipe_data(frames: int = 16, stride: int = 4) -> Data:
    """The data of VideoMAE's recipe: clips of 16 frames, 4 apart, cut at random and resized to 224."""
    return build("videomae", size="debug", frames=frames, stride=stride, crop=SIDE).data


def folders(work: Path, files: int = FILES, length: int = LENGTH) -> dict[str, Path]:
    """The videos as filmed, and as `unveil data prepare` makes them by default; made where they are not there."""
    original = work / f"filmed{files}"
    original.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = original / f"{number}.mp4"
        if not path.exists():
            encode(path, "libx264", WIDTH, HEIGHT, length, X264, seed=number)
    prepared = work / f"prepared{files}"
    prepare(original, out=prepared, workers=1, quiet=True)
    return {ORIGINAL: original, PREPARED: prepared}


def cropper(data: Data) -> CropFirst:
    found = CropFirst.of(data.transform[0])
    assert found is not None
    return found


def drawn(data: Data, path: Path, seed: int) -> Case:
    """What `own_clip` draws from a seed."""
    with VideoReader(path) as video:
        generator = torch.Generator().manual_seed(seed)
        assert isinstance(data.signal, Video)
        times = data.signal.clip.times(0.0, video.duration, video.fps, generator)
    torch.default_generator.manual_seed(seed)
    box = cropper(data).box(HEIGHT, WIDTH)
    return Case(str(path), seed, [int(time_ * FPS) for time_ in times], box)


# ---- contestants: a case → uint8 [16,3,224,224]


def own_clip(data: Data, case: Case) -> Tensor:
    crop = cropper(data)
    torch.default_generator.manual_seed(case.seed)  # as the loader does: no device is asked whether it is there
    generator = torch.Generator().manual_seed(case.seed)
    frames = data.signal.read(Row(case.path), generator, crop.box)
    assert isinstance(frames, Tensor)
    return crop.resize(frames)


def resized(frames: Any, box: Box) -> Tensor:
    """[T,H,W,3] → its part, resized; a view with channels first, which torchvision resizes fastest."""
    x = torch.as_tensor(frames).permute(0, 3, 1, 2)
    return F.resized_crop(x, *box, size=[SIDE, SIDE], antialias=True)


def contestants(data: Data) -> dict[str, Callable[[Case], Tensor]]:
    found: dict[str, Callable[[Case], Tensor]] = {
        OWN: lambda case: own_clip(data, case),
        "pyav": lambda case: resized(pyav_clip(case.path, case.indices, FPS), case.box),
    }
    try:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import RandomCrop, Resize

        def decoder(path: str, mode: str, **more: Any) -> Any:
            return VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode, **more)

        def with_own_transforms(case: Case) -> Tensor:
            chain = [RandomCrop((case.box.height, case.box.width)), Resize((SIDE, SIDE))]
            frames = decoder(case.path, "approximate", transforms=chain).get_frames_at(case.indices).data
            return frames.permute(0, 3, 1, 2)

        def with_torchvision(mode: str) -> Callable[[Case], Tensor]:
            return lambda case: resized(decoder(case.path, mode).get_frames_at(case.indices).data, case.box)

        found["torchcodec"] = with_torchvision("approximate")
        found["torchcodec, exact seeks"] = with_torchvision("exact")
        found["torchcodec, own transforms"] = with_own_transforms
    except (ImportError, RuntimeError, OSError) as error:  # not there; or there, and its FFmpeg is not
        print(f"torchcodec is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    try:
        import decord

        def with_decord(case: Case) -> Tensor:
            return resized(decord.VideoReader(case.path, num_threads=1).get_batch(case.indices).asnumpy(), case.box)

        found["decord"] = with_decord
    except (ImportError, RuntimeError, OSError) as error:
        print(f"decord is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


# ---- measuring


def parts(data: Data, case: Case) -> dict[str, float]:
    """CPU milliseconds of the steps of unveil's clip, one after the other."""
    crop, marks, out = cropper(data), [time.process_time()], []
    with VideoReader(case.path) as video:
        marks.append(time.process_time())
        frames = [frame for _, frame in video.shown([(index + 0.5) / FPS for index in case.indices], clamp=True)]
        marks.append(time.process_time())
        pictures = Pictures(HEIGHT, WIDTH)
        out = [torch.from_numpy(pictures.of(frame, None, case.box)) for frame in frames]
        marks.append(time.process_time())
        crop.resize(torch.stack(out).permute(0, 3, 1, 2))
        marks.append(time.process_time())
    names = ("open", "read and decode", "convert", "resize")
    return {name: (b - a) * 1000 for name, a, b in zip(names, marks, marks[1:], strict=False)}


def spread(ratios: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}


def measure(sets: dict[str, Path], data: Data, seconds: float) -> dict[str, Any]:
    rng = random.Random(0)
    ways = contestants(data)
    places = [(kind, name) for kind in sets for name in ways]
    times: dict[tuple[str, str], dict[str, list[float]]] = {place: {"cpu_ms": [], "wall_ms": []} for place in places}
    difference: dict[tuple[str, str], float] = {}
    steps: dict[str, list[dict[str, float]]] = {kind: [] for kind in sets}
    begun, number = time.perf_counter(), -1
    while number < 5 or time.perf_counter() - begun < seconds:
        name = rng.choice(sorted(path.name for path in sets[ORIGINAL].iterdir() if path.suffix == ".mp4"))
        seed = rng.randrange(2**31)
        cases = {kind: drawn(data, folder / name, seed) for kind, folder in sets.items()}
        results: dict[tuple[str, str], Tensor] = {}
        shift = number % len(places)
        for kind, way in places[shift:] + places[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            results[kind, way] = ways[way](cases[kind])
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if number >= 0:  # the first round opens libraries and fills caches
                times[kind, way]["cpu_ms"].append(round(spent[0] * 1000, 3))
                times[kind, way]["wall_ms"].append(round(spent[1] * 1000, 3))
        for (kind, way), x in results.items() if number < 5 else ():
            value = (x.int() - results[kind, OWN].int()).abs().float().mean().item()
            difference[kind, way] = max(round(value, 3), difference.get((kind, way), 0.0))
        for kind, case in cases.items():
            steps[kind].append(parts(data, case))
        number += 1
    found: dict[str, Any] = {"rounds": number, "sets": {}}
    for kind in sets:
        rows = {}
        for way in ways:
            own = times[kind, OWN]["cpu_ms"]
            rows[way] = {
                "median_cpu_ms": round(statistics.median(times[kind, way]["cpu_ms"]), 2),
                "median_wall_ms": round(statistics.median(times[kind, way]["wall_ms"]), 2),
                "times_unveil": spread([a / b for a, b in zip(times[kind, way]["cpu_ms"], own, strict=True)]),
                "mean_abs_difference": difference[kind, way],
                **times[kind, way],
            }
        peers = [way for way in ways if way != OWN]
        found["sets"][kind] = {
            "bytes_a_file": round(statistics.mean(path.stat().st_size for path in sets[kind].glob("*.mp4"))),
            "fastest_peer": min(peers, key=lambda way: rows[way]["times_unveil"]["median"]),
            "parts_cpu_ms": {
                part: round(statistics.median(step[part] for step in steps[kind][1:]), 2) for part in steps[kind][0]
            },
            "libraries": rows,
        }
    slow, fast = (times[kind, OWN]["cpu_ms"] for kind in (ORIGINAL, PREPARED))
    found["speed_of_prepared"] = spread([a / b for a, b in zip(slow, fast, strict=True)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/clips"), help="where the videos are kept")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument(
        "--tiny", action="store_true", help="few videos and rounds, which only show that everything runs"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sets = folders(asked.work, TINY_FILES if asked.tiny else FILES)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {**versions(), **libraries()},
        "threads": 1,
        "files": len(Manifest.scan([sets[ORIGINAL]], {".mp4"})),
        "job": f"16 frames, 4 apart, of {WIDTH} x {HEIGHT}, cut and resized to {SIDE}; times_unveil: CPU time ÷ unveil's, same round",
        **measure(sets, recipe_data(), 6 if asked.tiny else asked.seconds),
    }
    for kind, found in report["sets"].items():
        rows = found["libraries"].items()
        told = [f"{way} {row['median_cpu_ms']:.1f} ms (x{row['times_unveil']['median']:.2f})" for way, row in rows]
        print(f"{kind:10s}", "  ".join(told), found["parts_cpu_ms"])
    print("prepared files, as a multiple of the speed:", report["speed_of_prepared"])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

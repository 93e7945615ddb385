"""What cutting before converting saves: 16 decoded frames → RGB → RandomResizedCrop(224), in three ways.

    python benchmarks/crop.py --out benchmarks/results/crop.json

whole: all of each frame is converted, torchvision cuts and resizes. part: FFmpeg's crop filter cuts, the part is converted,
torchvision resizes (what unveil does; bit-identical). graph: FFmpeg's filters cut, resize and convert (as --flags say). One
thread; the three in turn, many times; CPU time. Videos are those of benchmarks/decode.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import torch
from av.filter import Graph
from decode import VIDEOS, encode, machine, versions
from torchvision.transforms.v2 import functional as F

from unveil.data import RandomResizedCrop
from unveil.data.boxes import Box
from unveil.data.picture import Pictures
from unveil.data.transforms import CropFirst

SIZE = 224
SETS = ("h264 340x256", "h264 1280x720", "h264 1920x1080")


def whole(frames: list[av.VideoFrame], box: Box) -> torch.Tensor:
    height, width = frames[0].height, frames[0].width
    pictures, out = Pictures(height, width), np.empty((len(frames), height, width, 3), np.uint8)
    for place, frame in enumerate(frames):
        pictures.of(frame, out[place])
    return F.resized_crop(torch.from_numpy(out).permute(0, 3, 1, 2), *box, [SIZE, SIZE], antialias=True)


def part(frames: list[av.VideoFrame], box: Box) -> torch.Tensor:
    pictures = Pictures(frames[0].height, frames[0].width)
    out = np.empty((len(frames), box.height, box.width, 3), np.uint8)
    for place, frame in enumerate(frames):
        pictures.of(frame, out[place], box)
    return F.resize(torch.from_numpy(out).permute(0, 3, 1, 2), [SIZE, SIZE], antialias=True)


def graph(frames: list[av.VideoFrame], box: Box, flags: str) -> torch.Tensor:
    chain = Graph()
    chain.threads = 1
    first = frames[0]
    source = chain.add_buffer(width=first.width, height=first.height, format=first.format, time_base=first.time_base)
    crop = chain.add("crop", f"w={box.width}:h={box.height}:x={box.left}:y={box.top}:exact=1")
    scale = chain.add("scale", f"w={SIZE}:h={SIZE}:flags={flags}:threads=1")
    chain.link_nodes(source, crop, scale, chain.add("format", "pix_fmts=rgb24"), chain.add("buffersink")).configure()
    out = np.empty((len(frames), SIZE, SIZE, 3), np.uint8)
    for place, frame in enumerate(frames):
        chain.vpush(frame)
        out[place] = chain.vpull().to_ndarray()
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/decode"), help="where the videos are kept")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--flags", default="bilinear+accurate_rnd+full_chroma_int", help="of swscale, for graph")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    ways = {"whole": whole, "part": part, "graph": lambda frames, box: graph(frames, box, arguments.flags)}
    report: dict = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "videos": {}}
    report["flags of graph"] = arguments.flags
    for name in SETS:
        path = arguments.work / (name.replace(" ", "_") + ".mp4")
        if not path.exists():
            encode(path, *VIDEOS[name])
        with av.open(str(path)) as container:
            frames = [frame for _, frame in zip(range(16), container.decode(video=0), strict=False)]
        crops = {"0.2 to 1": (0.2, 1.0), "0.08 to 1": (0.08, 1.0)}
        for label, scale in crops.items():
            torch.manual_seed(0)
            cropper = CropFirst.of(RandomResizedCrop(SIZE, scale=scale))
            assert cropper is not None
            times: dict[str, list[float]] = {way: [] for way in ways}
            differences: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                box = cropper.box(frames[0].height, frames[0].width)
                results = {}
                for way in random.sample(list(ways), len(ways)):
                    since = time.process_time()
                    results[way] = ways[way](frames, box)
                    times[way].append((time.process_time() - since) * 1000)
                for way, result in results.items():
                    differences[way].append((result.int() - results["whole"].int()).abs().float().mean().item())
            rows = {
                way: {
                    "median_cpu_ms": round(statistics.median(times[way]), 2),
                    "times_whole": round(
                        statistics.median(a / b for a, b in zip(times[way], times["whole"], strict=True)), 3
                    ),
                    "mean_abs_difference": round(statistics.mean(differences[way]), 3),
                }
                for way in ways
            }
            report["videos"][f"{name}, crops of {label} of the area"] = rows
            print(f"{name:16s} {label:10s}", *(f"{way} {row}" for way, row in rows.items()), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

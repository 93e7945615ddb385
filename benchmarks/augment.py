"""Where are views augmented faster: in a loader's worker, picture by picture, or on the device, in batches?

    python benchmarks/augment.py --out benchmarks/results/augment.json

MoCo v3's two views of decoded pictures. In turn (A B A B): `worker`, as `unveil` does it, each picture from its file's pixels on one
thread of the CPU; `device`, what a batch on the device would do: pictures padded to one size and sent over, then the same
transforms, each picture with parameters of its own. The ratio is of pictures per second of one worker and of the device; a
device that is k times as fast as a worker is worth it where it idles and there are fewer than k workers. On a CPU the device is
the worker's own core, and can only tie or lose: then the answer is known beforehand, and what is measured is the cost of going there.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unveil import build
from unveil.data import to_input
from unveil.recipe import Data


def views(data: Data, x: Tensor) -> Tensor:
    """A picture, wherever it is → its two views, as the network takes them."""
    made = []
    for transforms in (data.transform, *data.views):
        view = x
        for transform in transforms:
            view = transform(view)
        made.append(view)
    return torch.stack(made)


def normalised(made: Tensor, data: Data) -> Tensor:
    mean, std = (torch.tensor(values, device=made.device).view(-1, 1, 1) for values in (data.mean, data.std))
    return (made.float() / 255 - mean) / std


def in_worker(data: Data, pictures: list[Tensor], device: torch.device) -> Tensor:
    stacks = [torch.stack([to_input(view, data.mean, data.std) for view in views(data, x)]) for x in pictures]
    return torch.stack(stacks).to(device)


def on_device(data: Data, pictures: list[Tensor], device: torch.device) -> Tensor:
    height, width = (max(x.shape[axis] for x in pictures) for axis in (1, 2))
    padded = torch.zeros(len(pictures), 3, height, width, dtype=torch.uint8)
    for place, x in zip(padded, pictures, strict=True):
        place[:, : x.shape[1], : x.shape[2]] = x
    sent = padded.to(device, non_blocking=True)
    # Parameters of their own mean calls of their own: torchvision draws once for a batch.
    made = [views(data, sent[i, :, : x.shape[1], : x.shape[2]]) for i, x in enumerate(pictures)]
    return normalised(torch.stack(made), data)


def rate(way: Callable[..., Tensor], data: Data, pictures: list[Tensor], device: torch.device) -> float:
    """Pictures per second."""
    began = time.perf_counter()
    way(data, pictures, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return len(pictures) / (time.perf_counter() - began)


def measured(
    device: torch.device, batch: int = 32, side: int = 400, crop: int = 224, rounds: int = 5
) -> dict[str, Any]:
    """Pictures per second in a worker and on the device, and their ratio."""
    torch.manual_seed(0)
    data = build("mocov3", size="debug", crop=crop).data
    pictures = [torch.randint(256, (3, side, side + 10 * (i % 8)), dtype=torch.uint8) for i in range(batch)]
    ways = {"worker": in_worker, "device": on_device}
    for way in ways.values():
        rate(way, data, pictures[:4], device)  # first calls build what later ones use
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(rate(way, data, pictures, device))
    ratios = [device_rate / worker for worker, device_rate in zip(rates["worker"], rates["device"], strict=True)]
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu ({platform.machine()}), one thread",
        "torch": torch.__version__,
        "crop": crop,
        "batch": batch,
        "pictures_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "device_over_worker": {"median": round(statistics.median(ratios), 3), "all": [round(r, 3) for r in ratios]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/augment.json"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=400, help="short side of the pictures, in pixels")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(torch.device(asked.device), asked.batch, asked.side, asked.crop, asked.rounds)
    print(json.dumps(result, indent=1))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

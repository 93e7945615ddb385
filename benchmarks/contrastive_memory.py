"""Does the contrastive loss's memory grow with the global batch, or with its square?

    python benchmarks/contrastive_memory.py --out benchmarks/results/contrastive_memory.json

Forward and backward of InfoNCE between the features of one process and those of all, for growing global batches: in the plain way,
which holds all similarities, and as `unveil.losses.contrast` does it. What is counted is what PyTorch's allocator gave out at
most beyond the features themselves: on a GPU by its own count, on a CPU by the profiler's. The exponent is the slope of the
logarithm of the peak over that of the batch: 2 for a square, 1 for what is proportional. One process stands for all of them (a world of
one is the worst case: local rows and global batch are the same).
"""

import argparse
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from allocated import peak
from torch import Tensor
from torch.nn import functional

from unveil.losses import contrast

WIDTH = 256
BATCHES = (512, 1024, 2048, 4096, 8192)


def naive(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    own = torch.arange(len(queries), device=queries.device)
    return functional.cross_entropy(scale * queries @ keys.T, own)


def step(loss: Callable[..., Tensor], batch: int, device: torch.device) -> Callable[[], None]:
    """Forward and backward of a loss."""
    leaves = [functional.normalize(torch.randn(batch, WIDTH, device=device), dim=1).requires_grad_() for _ in range(2)]
    return lambda: loss(*leaves, 5.0).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/contrastive_memory.json"))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    result: dict[str, Any] = {"device": where, "torch": torch.__version__, "width": WIDTH, "bytes": {}, "exponent": {}}
    for name, loss in (("plain", naive), ("ours", contrast)):
        bytes_of = {batch: peak(step(loss, batch, device), device) for batch in asked.batches}
        low, high = asked.batches[-2:]
        result["bytes"][name] = bytes_of
        result["exponent"][name] = round(math.log(bytes_of[high] / bytes_of[low]) / math.log(high / low), 2)
        print(name, {batch: f"{count / 2**20:.1f} MiB" for batch, count in bytes_of.items()}, result["exponent"][name])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What leaving patches out saves: samples per second and peak memory of FLIP at several ratios, next to the paper's figure.

    python benchmarks/flip_speed.py --out benchmarks/results/flip_speed.json
    python benchmarks/flip_speed.py --out /tmp/flip_speed.json --size debug --crop 64 --batch 2 --rounds 1 --steps 1  # does it run?

Whole training steps (both towers, loss, backward pass, AdamW) on random pictures and texts, at B/16 and 224² by default. The
ratios take turns, A B C A B C, and what is reported is each one's median, and its quotient to ratio 0 of the same round, so that a
machine that slows down does not favour one. Peak memory is what PyTorch's allocator gave out at most during one step, on a GPU by
its own count, on a CPU by the profiler's; weights and optimiser are not counted. The paper (2212.00794) speaks of half the
computation at ratio 0.5, and so of twice the pairs in the same time; the text's tower and the loss are not masked.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from allocated import peak
from decode import machine
from torch import Tensor

from unveil.flags import build
from unveil.run import versions
from unveil.sizes import gmacs

PAPER = {"0.5": 2.0}


def batch_of(size: int, crop: int, context: int, vocabulary: int, device: torch.device) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randn(size, 3, crop, crop, generator=generator),
        "text": torch.randint(1, vocabulary, (size, context), generator=generator),
        "seed": torch.randint(2**62, (size,), generator=generator),
    }
    return {name: value.to(device) for name, value in batch.items()}


class Training:
    """One ratio's network and optimiser; `step` is a whole one."""

    def __init__(self, ratio: float, flags: dict[str, Any], batch: dict[str, Tensor], device: torch.device):
        torch.manual_seed(0)
        self.recipe = build("flip", ratio=ratio, **flags)
        self.objective = self.recipe.objective.to(device).train()
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), lr=1e-5)
        self.batch, self.device = batch, device

    def step(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.objective(self.batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(0.0)

    def seconds(self, steps: int) -> float:
        # One thread's own time does not count what other work takes of the machine.
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter
        self.step()
        _wait(self.device)
        began = clock()
        for _ in range(steps):
            self.step()
        _wait(self.device)
        return (clock() - began) / steps

    def peak(self) -> int:
        """Bytes beyond what is held between steps."""
        self.step()
        return peak(self.step, self.device)


def counted(ratio: float, flags: dict[str, Any]) -> float:
    """Multiply-adds of a forward pass on one pair, in 10⁹, without computing it."""
    with torch.device("meta"):
        recipe = build("flip", ratio=ratio, **flags)
    return gmacs(recipe)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/flip_speed.json"))
    parser.add_argument("--size", default="B/16")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.5, 0.75])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.ratios[0] != 0:
        parser.error("the first ratio is what the others are compared with: 0")
    device = torch.device(asked.device)
    flags = {"size": asked.size, "crop": asked.crop}
    sketch = build("flip", **flags)
    text: Any = sketch.data.text
    batch = batch_of(asked.batch, asked.crop, text.context, text.vocabulary, device)
    seconds: dict[str, list[float]] = {f"{ratio:g}": [] for ratio in asked.ratios}
    for _ in range(asked.rounds):
        for ratio in asked.ratios:  # one network at a time is in memory
            seconds[f"{ratio:g}"].append(Training(ratio, flags, batch, device).seconds(asked.steps))
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{machine()}, {asked.threads} threads"
    result: dict[str, Any] = {
        "machine": where, "versions": versions(), "date": time.strftime("%Y-%m-%d"), "size": asked.size, "crop": asked.crop,
        "batch": asked.batch, "rounds": asked.rounds, "paper_speed": PAPER, "ratios": {},
    }  # fmt: skip
    whole = seconds["0"]
    for ratio in asked.ratios:
        name = f"{ratio:g}"
        found = {
            "samples_per_s": round(asked.batch / statistics.median(seconds[name]), 3),
            "speed": round(statistics.median(a / b for a, b in zip(whole, seconds[name], strict=True)), 3),
            "peak_bytes": Training(ratio, flags, batch, device).peak(),
            "gmacs": float(f"{counted(ratio, flags):.4g}"),
        }
        result["ratios"][name] = found
        print(name, found)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

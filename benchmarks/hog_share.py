"""What MaskFeat's target costs: histograms of oriented gradients as a share of a training step.

    python benchmarks/hog_share.py --out benchmarks/results/hog_share.json [--device cuda] [--batch 64 --clips 8]

ViT-B/16 on images and MViTv2-S on clips of 16 frames, as published. A step (masks, forward, target, loss, backward, clipped
gradient, AdamW) with the target computed, and the same step with the same target given, in turn (A B A B …); the share is taken
round by round. Beside it the seconds of the target alone, of the masked patches and of all of them, and of drawing the masks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from backbones import in_turn
from decode import machine
from torch import Tensor, nn

import unveil
from unveil.run import versions
from unveil.sizes import sample


class Step(nn.Module):
    """One step of training on the signals it is given.

    Args:
        recipe: of the objective; its clipping and optimiser's numbers.
        seeds: of the samples [B].
        given: the target, where it is not to be computed.
    """

    def __init__(self, recipe: Any, seeds: Tensor, given: Tensor | None):
        super().__init__()
        self.objective, self.clip = recipe.objective, recipe.clip_gradient
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(), lr=1e-6, weight_decay=recipe.optimizer.weight_decay
        )
        self.seeds, self.given = seeds, given

    def forward(self, x: Tensor) -> None:
        objective, batch = self.objective, {self.objective.key: x, "seed": self.seeds}
        mask = objective.masked(batch)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            prediction, grid, indices = objective.predict(batch, mask)
        target = objective.target(batch, grid, indices) if self.given is None else self.given
        objective.loss(prediction, target).backward()
        nn.utils.clip_grad_norm_(objective.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Target(nn.Module):
    """The target alone, at the places that were drawn, or at all."""

    def __init__(self, objective: Any, grid: tuple[int, ...], indices: Tensor):
        super().__init__()
        self.objective, self.grid, self.indices = objective, grid, indices

    def forward(self, x: Tensor) -> None:
        self.objective.target({self.objective.key: x}, self.grid, self.indices)


class Masks(nn.Module):
    """Drawing the masks alone."""

    def __init__(self, objective: Any, seeds: Tensor):
        super().__init__()
        self.objective, self.seeds = objective, seeds

    def forward(self, x: Tensor) -> None:
        self.objective.masked({self.objective.key: x, "seed": self.seeds})


def quartiles(values: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 5), "quartiles": [round(low, 5), round(high, 5)]}


def measure(flags: dict[str, Any], batch: int, device: torch.device, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    recipe: Any = unveil.build("maskfeat", **flags)
    objective = recipe.objective.to(device).train()
    x = torch.randn(batch, *sample(recipe)[objective.key].shape[1:], device=device)
    seeds = torch.arange(batch, device=device)
    given = {objective.key: x, "seed": seeds}
    with torch.no_grad():
        _, grid, indices = objective.predict(given, objective.masked(given))
    everywhere = torch.arange(torch.Size(grid).numel(), device=device).expand(batch, -1)
    target = objective.target(given, grid, indices)
    steps: dict[str, nn.Module] = {
        "target computed": Step(recipe, seeds, None),
        "target given": Step(recipe, seeds, target),
    }
    parts = {
        "target of the masked": Target(objective, grid, indices),
        "target of all": Target(objective, grid, everywhere),
        "masks": Masks(objective, seeds),
    }

    def call(network: nn.Module, signals: Tensor) -> None:
        network(signals)

    times = in_turn(call, steps, x, rounds) | in_turn(call, parts, x, rounds)
    pairs = zip(times["target computed"], times["target given"], strict=True)
    found: dict[str, Any] = {"flags": flags, "shape": list(x.shape), "patches": [len(indices[0]), len(everywhere[0])]}
    found["share"] = quartiles([1 - without / whole for whole, without in pairs])
    found["seconds"] = {name: quartiles(seconds) for name, seconds in times.items()}
    whole = statistics.median(times["target computed"])
    found["share_of_parts"] = {name: round(statistics.median(times[name]) / whole, 5) for name in parts}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--debug", action="store_true", help="tiny networks: to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{machine()}, {arguments.threads} threads"
    tiny = {"size": "debug", "crop": 64, "patch": 8} if arguments.debug else {}
    rows = {
        "ViT-B/16, images": ({**tiny}, arguments.batch),
        "MViTv2-S, clips of 16 × 4": ({"frames": 16, **tiny}, arguments.clips),
    }
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions()}
    report |= {"rounds": arguments.rounds, "rows": {}}
    for name, (flags, batch) in rows.items():
        report["rows"][name] = measure(flags, batch, device, arguments.rounds)
        print(name, json.dumps(report["rows"][name], indent=1), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

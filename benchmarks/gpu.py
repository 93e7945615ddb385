"""What a CUDA card makes of our networks: use of its arithmetic, memory, speed next to other packages', augmentation.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json [--only pretraining] [--peak 989e12]
    python benchmarks/gpu.py --out /tmp/gpu.json --device cpu --tiny  # does it run?

bf16 autocast, PyTorch's fused attention, fused AdamW on every side. Of each network all contestants are built in one process and
take steps in turn, every second round the other way round; the first steps, which compile, do not count. Ratios are within a round.

pretraining: steps of MAE-ST and VideoMAE, L and H, as they are and compiled (unveil: each block of encoder and decoder, as
`--compile` does with the encoder's; transformers' VideoMAE: as a whole). Model-FLOPs utilisation is three times the operations of a
forward pass of encoder and decoder, as PyTorch counts them, by the time of a step and the card's dense bf16 peak. What is recomputed
does not count. Peak memory of a step beyond weights and optimiser, without and with `--checkpointing`.
training: steps of SlowFast, MViTv2-S and X3D-M from labels, next to torchvision's where it has the network (timm has none of them).
augmentation: benchmarks/augment.py on this device.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import augment
import torch
from allocated import peak
from contestants import CLIP, RATE, Network, Step, ours, transformers_videomae
from decode import machine
from steps import bound, ratios, shrunk
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unveil.flags import build
from unveil.run import versions
from unveil.sizes import recomputing, sample

PEAKS = {
    "H100 80GB HBM3": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989.4e12,
    "H200 NVL": 835e12,
    "B200": 2250e12,
    "A100": 312e12,
}
"""Dense bf16 operations a second by a part of the card's name: half of what data sheets give with sparsity. Of others: `--peak`."""
PRETRAINING = {
    "mae_st L": Network("mae_st", {"size": "L"}, CLIP, 32),
    "mae_st H": Network("mae_st", {"size": "H"}, CLIP, 16),
    "videomae L": Network("videomae", {"size": "L"}, CLIP, 32),
    "videomae H": Network("videomae", {"size": "H"}, CLIP, 16),
}
TRAINING: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "slowfast R50 8x8": ("slowfast", {"size": "R50_8x8"}, "", 16),
    "mvitv2 S 16x4": ("mvitv2", {"size": "S_16x4"}, "mvit_v2_s", 16),
    "x3d M": ("x3d", {"size": "M"}, "", 16),
}
TINY_TRAINING: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "slowfast R50 8x8": ("slowfast", {"size": "debug", "crop": 32}, "", 2),
    "x3d M": ("x3d", {"size": "debug", "crop": 32}, "", 2),
}


def peak_of(card: str) -> float | None:
    """Operations a second of the card whose name has the longest known part."""
    known = [name for name in PEAKS if name in card]
    return PEAKS[max(known, key=len)] if known else None


def half(step: Step, device: torch.device) -> Step:
    def loss() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return step.loss()

    return step._replace(loss=loss)


def compiled(step: Step, backend: str, whole: bool) -> Step:
    network: Any = step.network
    if whole:
        network.compile(backend=backend)
        return step
    for part in (network.encoder, network.decoder):
        for block in getattr(part, "blocks", ()):
            block.compile(backend=backend)
    return step


def supervised(recipe_name: str, flags: dict[str, Any], batch: int, device: torch.device) -> Step:
    from unveil.training.optimizer import make

    recipe = build(recipe_name, **flags)
    network: Any = recipe.objective.train().to(device)
    x = batch_like(sample(recipe)["video"], batch, device)
    label = torch.arange(batch, device=device)
    given = {"video": x, "label": label, "seed": torch.zeros(batch, dtype=torch.int64, device=device)}
    return Step(network, lambda: network(given)["loss"], make(network, recipe.optimizer, device))


def torchvisions(name: str, shape: torch.Size, batch: int, device: torch.device) -> Step:
    from torchvision.models import get_model

    network: Any = get_model(name, weights=None).train().to(device)
    x = torch.randn(batch, *shape, device=device)
    label = torch.arange(batch, device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)
    return Step(network, lambda: F.cross_entropy(network(x), label), optimizer)


def batch_like(x: torch.Tensor, batch: int, device: torch.device) -> torch.Tensor:
    return torch.randn(batch, *x.shape[1:], device=device)


def in_turn(steps: dict[str, Step], rounds: int, each: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of a step of each contestant in each round; what warms up (and compiles) does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    for number in range(rounds):
        for name, step in list(steps.items())[:: -1 if number % 2 else 1]:
            with waited(device):
                began = time.perf_counter()
            with waited(device):
                for _ in range(each):
                    step()
            seconds[name].append(round((time.perf_counter() - began) / each, 5))
    return seconds


@contextmanager
def waited(device: torch.device) -> Iterator[None]:
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()


def forward_flops(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step.loss()
    return counter.get_total_flops()


def told(
    steps: dict[str, Step], asked: argparse.Namespace, device: torch.device, flops: dict[str, int]
) -> dict[str, Any]:
    seconds = in_turn(steps, asked.rounds, asked.steps, device)
    row: dict[str, Any] = {"seconds": seconds, "times_unveil": {}, "forward_flops": flops}
    best = min((name for name in seconds if name.startswith("unveil")), key=lambda name: min(seconds[name]))
    row |= {"best": best, "times_unveil": ratios(seconds, best)}
    row["mfu"] = {
        name: None if asked.peak is None else round(3 * flops[name.split(",")[0]] * len(own) / sum(own) / asked.peak, 4)
        for name, own in seconds.items()
    }
    row["bound"] = bound(steps[best])[:5]
    return row


def pretraining(name: str, network: Network, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    makers: dict[str, Callable[[], Step]] = {"unveil": lambda: half(ours(network, device=device), device)}
    if network.recipe == "videomae":
        makers["transformers"] = lambda: half(transformers_videomae(network, device), device)
    steps: dict[str, Step] = {}
    flops: dict[str, int] = {}
    for who, make in makers.items():
        try:
            steps[who] = make()
        except ModuleNotFoundError as error:
            print(f"{name}: {who} is left out: {error}")
            continue
        flops[who] = forward_flops(steps[who])
        steps[f"{who}, compiled"] = compiled(make(), asked.backend, whole=who != "unveil")
    row = told(steps, asked, device, flops)
    row |= {"batch": network.batch, "shape": network.shape, "flags": network.flags, "peak_bytes": {}}
    row["samples_per_s"] = {who: round(network.batch * len(own) / sum(own), 2) for who, own in row["seconds"].items()}
    for who, step in steps.items():
        row["peak_bytes"][who] = peak(step, device)
    with recomputing(steps["unveil"].network, True):
        steps["unveil"]()
        row["peak_bytes"]["unveil, checkpointing"] = peak(steps["unveil"], device)
        again = in_turn({"unveil": steps["unveil"]}, asked.rounds, asked.steps, device)["unveil"]
    row["checkpointing_seconds"] = again
    return row


def training(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    recipe, flags, peer, batch = (TINY_TRAINING if asked.tiny else TRAINING)[name]
    batch = asked.batch or batch
    steps = {"unveil": half(supervised(recipe, flags, batch, device), device)}
    shape = sample(build(recipe, **flags))["video"].shape[1:]
    if peer:
        steps["torchvision"] = half(torchvisions(peer, shape, batch, device), device)
    flops = {who: forward_flops(step) for who, step in steps.items()}
    row = told(steps, asked, device, flops)
    row |= {"batch": batch, "shape": list(shape), "flags": flags, "peer": peer or None}
    row["samples_per_s"] = {who: round(batch * len(own) / sum(own), 2) for who, own in row["seconds"].items()}
    return row | {"peak_bytes": {who: peak(step, device) for who, step in steps.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--only", default="", help="rows whose name begins so: pretraining, training, augmentation")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--peak", type=float, help="the card's dense bf16 operations a second, where it is not known here"
    )
    parser.add_argument("--batch", type=int, default=0, help="of every network, in place of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="networks that only show that everything runs")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    asked.backend = "eager" if asked.tiny else "inductor"  # a minute of compiling says nothing of whether it runs
    if asked.tiny:
        asked.rounds = asked.steps = 2
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("there is no CUDA device; --device cpu --tiny shows whether this runs")
        where = torch.cuda.get_device_name(device)
        asked.peak = asked.peak or peak_of(where)
        if asked.peak is None:
            parser.error(f"{where}: its peak is not known here; say it with --peak (dense bf16 operations a second)")
    else:
        torch.set_num_threads(1)
        where = f"{machine()}, 1 threads"
    report: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": {}}
    if report.get("machine", where) != where:
        parser.error(f"{asked.out} was measured on {report['machine']}, this is {where}: name another file.")
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions(), "rounds": asked.rounds}
    report |= {"peak": asked.peak, "precision": "bf16 autocast", "threads": torch.get_num_threads()}
    work: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, network in PRETRAINING.items():
        if asked.tiny:
            network = shrunk(network)
        elif asked.batch:
            network = network._replace(batch=asked.batch)
        work[f"pretraining {name}"] = lambda name=name, network=network: pretraining(name, network, asked, device)
    for name in TINY_TRAINING if asked.tiny else TRAINING:
        work[f"training {name}"] = lambda name=name: training(name, asked, device)
    small: dict[str, int] = {"batch": 4, "side": 64, "crop": 32, "rounds": 2} if asked.tiny else {}
    work["augmentation"] = lambda: augment.measured(device, **small)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for name, row in work.items():
        if name.startswith(asked.only):
            torch.manual_seed(0)
            report["rows"][name] = row()
            asked.out.write_text(json.dumps(report, indent=1) + "\n")
            shown = ("times_unveil", "mfu", "peak_bytes", "device_over_worker")
            print(name, json.dumps({k: v for k, v in report["rows"][name].items() if k in shown}), flush=True)
            torch.compiler.reset()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

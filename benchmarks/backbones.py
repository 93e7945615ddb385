"""Our backbones next to torchvision's (and timm's, where it is installed) of the same build: forward, and forward and backward.

    python benchmarks/backbones.py --out benchmarks/results/backbones.json [--only s3d] [--device cuda] [--threads 1]

Of each row both networks are built in one process, given the same input, and timed in turn (A B B A …), many times; the ratio is
taken round by round. Ours is also timed as it can be prepared for inference: batch norms folded, channels last, compiled. A network
that convolves pictures trains with channels last: such steps are timed of both, and ours is compared with the peer's better form.
A row whose recipe this version lacks is passed over and said; rows that were measured before are kept.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from decode import machine
from torch import Tensor, nn

import unveil
from unveil import recipes
from unveil.layers import channels_last, folded
from unveil.run import versions


class Row(NamedTuple):
    """A recipe with its flags, and the same network elsewhere ("torchvision:s3d", "timm:resnet50")."""

    recipe: str
    flags: dict[str, Any]
    peer: str
    shape: tuple[int, ...]


IMAGE = (3, 224, 224)
CLIP = (3, 16, 224, 224)
ROWS = {
    "s3d": Row("s3d", {"frames": 16}, "torchvision:s3d", CLIP),
    "resnet 50": Row("resnet", {"size": "50"}, "torchvision:resnet50", IMAGE),
    "resnext 50 32x4d": Row("resnet", {"size": "50_32x4d"}, "torchvision:resnext50_32x4d", IMAGE),
    "regnet Y8GF": Row("regnet", {"size": "Y8GF"}, "torchvision:regnet_y_8gf", IMAGE),
    "regnet X8GF": Row("regnet", {"size": "X8GF"}, "torchvision:regnet_x_8gf", IMAGE),
    "vit B": Row("vit", {"size": "B"}, "torchvision:vit_b_16", IMAGE),
    "mvit B": Row("mvit", {"size": "B_16x4"}, "torchvision:mvit_v1_b", CLIP),
    "mvitv2 S": Row("mvitv2", {"size": "S_16x4"}, "torchvision:mvit_v2_s", CLIP),
    "resnet 50, timm": Row("resnet", {"size": "50"}, "timm:resnet50", IMAGE),
    "regnet Y4GF, timm": Row("regnet", {"size": "Y4GF"}, "timm:regnety_040", IMAGE),
    "mvitv2 image T, timm": Row("mvitv2", {"size": "T"}, "timm:mvitv2_tiny", IMAGE),
    "vit B, timm": Row("vit", {"size": "B"}, "timm:vit_base_patch16_224", IMAGE),
}


class Logits(nn.Module):
    """A classifier of ours as its peers are called: signal → logits."""

    def __init__(self, objective: Any):
        super().__init__()
        self.objective = objective

    def forward(self, x: Tensor) -> Tensor:
        return self.objective.logits({self.objective.key: x})


def peer(name: str) -> nn.Module | None:
    """None where its package is not installed."""
    package, _, model = name.partition(":")
    if package == "timm":
        try:
            import timm
        except ModuleNotFoundError:
            return None
        return timm.create_model(model, pretrained=False)
    from torchvision.models import get_model

    return get_model(model, weights=None)


def million(network: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 3)


def forward(network: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        network(x)


def backward(network: nn.Module, x: Tensor) -> None:
    network(x).float().square().mean().backward()
    for parameter in network.parameters():
        parameter.grad = None


def in_turn(
    run: Callable[[nn.Module, Tensor], None], networks: dict[str, nn.Module], x: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each network in each round, every second round the other way round. What is timed follows a run of the same network,
    which is not: otherwise it would find memory and caches as another one left them, and those at the ends would follow themselves."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    # One thread's own time does not count what other work takes of the machine.
    clock = time.process_time if not x.is_cuda and torch.get_num_threads() == 1 else time.perf_counter
    for number in range(rounds):
        for name, network in list(networks.items())[:: 1 if number % 2 else -1]:
            for timed in (False, True):
                since = clock()
                run(network, x)
                if x.is_cuda:
                    torch.cuda.synchronize()
                if timed:
                    times[name].append(clock() - since)
    return times


def summary(times: dict[str, list[float]], batch: int, against: str) -> dict[str, Any]:
    """Samples a second; and each one's speed as a multiple of `against`'s in the same round: median and quartiles."""
    found = {}
    for name, seconds in times.items():
        ratio = [theirs / own for own, theirs in zip(seconds, times[against], strict=True)]
        quartiles = statistics.quantiles(ratio, n=4) if len(ratio) > 1 else [ratio[0]] * 3
        found[name] = {
            "samples_per_s": round(batch / statistics.median(seconds), 3),
            f"times_{against}": round(statistics.median(ratio), 3),
            "quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        }
    return found


def measure(row: Row, device: torch.device, batch: int, rounds: int, compiled: bool) -> dict[str, Any] | None:
    theirs = peer(row.peer)
    if theirs is None:
        print(f"  {row.peer} is not installed: passed over")
        return None
    torch.manual_seed(0)
    ours = Logits(unveil.build(row.recipe, **row.flags).objective)
    x = torch.randn(batch, *row.shape, device=device)
    pair = {"peer": theirs.to(device).eval(), "unveil": ours.to(device).eval()}
    ready = {**pair, "folded": folded(ours, x[:1])}
    ready["folded, channels last"] = channels_last(folded(ours, x[:1]))
    if compiled:
        fast: Any = folded(ours, x[:1])
        for block in fast.objective.encoder.blocks:
            block.compile()
        ready["folded, compiled"] = fast
    found: dict[str, Any] = {"peer": row.peer, "shape": [batch, *row.shape], "flags": row.flags}
    found["million parameters"] = {name: million(network) for name, network in pair.items()}
    found["forward"] = summary(in_turn(forward, ready, x, rounds), batch, "peer")
    for network in pair.values():
        network.train()
    if len(row.shape) == 3 and any(isinstance(part, nn.Conv2d) and part.in_channels > 3 for part in ours.modules()):
        pair["unveil, channels last"] = channels_last(copy.deepcopy(ours), (2,))  # as the training loop has it
        pair["peer, channels last"] = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    times = in_turn(backward, pair, x, rounds)
    found["forward and backward"] = summary(times, batch, "peer")
    if "unveil, channels last" in times:
        better = min(("peer", "peer, channels last"), key=lambda name: statistics.median(times[name]))
        both = {"peer": times[better], "unveil": times["unveil, channels last"]}
        found["as trained"] = {"peer": better, **summary(both, batch, "peer")["unveil"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="also our blocks compiled")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{machine()}, {arguments.threads} threads"
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    if report.get("machine", where) != where:
        parser.error(f"{arguments.out} was measured on {report['machine']}, this is {where}: name another file.")
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions(), "rounds": arguments.rounds}
    for name, row in ROWS.items():
        if not name.startswith(arguments.only):
            continue
        print(name, flush=True)
        if row.recipe not in recipes.names():
            print(f"  there is no recipe {row.recipe} yet: passed over")
            continue
        if (found := measure(row, device, arguments.batch, arguments.rounds, arguments.compile)) is not None:
            report["rows"][name] = found
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
            for what in ("forward", "forward and backward"):
                print(
                    f"  {what}", *(f"{way} {numbers}" for way, numbers in found[what].items()), sep="\n    ", flush=True
                )


if __name__ == "__main__":
    main()

"""Whole pre-training steps next to other packages' of the same network, and what leaving masked patches out of the encoder saves.

    python benchmarks/steps.py --out benchmarks/results/steps.json [--only videomae] [--threads 1] [--compile]
    python benchmarks/steps.py --out /tmp/steps.json --tiny  # does it run?

A step draws masks, runs forward and backward and AdamW (fused, on every side) on the same random signal. All contestants of a row are
in one process, built anew one after the other in every round, every second round the other way round; the first step of each warms
up. Ratios are within a round. Peak memory is what PyTorch's allocator gave out at most during a step, beyond weights and optimiser.
Peers (`pip install unveil[peers]`) that are not installed are left out, and said.

The last rows compare a step with one whose encoder sees a token in place of every masked patch; the decoder is the same. The papers:
MAE 3 × or more, MAE-ST more than 4 × the speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from allocated import peak
from decode import machine
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unveil.encoders import ViT
from unveil.flags import build
from unveil.masking import Mask
from unveil.run import versions
from unveil.tokens import Tokens
from unveil.training.optimizer import make

RATE = 1e-5
KEPT = 8
"""Kernels of a row's profile, the dearest first."""


class Step(NamedTuple):
    """One contestant: its parameters and its loss."""

    network: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class AllTokens(nn.Module):
    """A ViT that computes as many tokens as if masked patches were replaced, and hands on the visible ones."""

    def __init__(self, encoder: ViT):
        super().__init__()
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "encoder" else getattr(self.encoder, name)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        tokens = self.encoder(x, layer=layer)
        return tokens if mask is None else tokens.gather(mask.visible)


class Network(NamedTuple):
    """What is compared, at its size and at one that only shows that everything runs."""

    recipe: str
    flags: dict[str, Any]
    shape: tuple[int, ...]
    batch: int


IMAGE, CLIP = (3, 224, 224), (3, 16, 224, 224)
TINY = {
    "videomae": {"size": "debug", "frames": 4, "crop": 32},
    "mae": {"size": "debug", "crop": 32},
    "mae_st": {"size": "debug", "frames": 4, "crop": 32},
}
PEERS = {
    "videomae S": Network("videomae", {"size": "S"}, CLIP, 4),
    "mae B": Network("mae", {"size": "B"}, IMAGE, 32),
}
SAVED = {
    "mae L": Network("mae", {"size": "L"}, IMAGE, 4),
    "mae_st L": Network("mae_st", {"size": "L"}, CLIP, 1),
    "videomae B": Network("videomae", {"size": "B"}, CLIP, 1),
}
PAPER = {"mae L": 3.0, "mae_st L": 4.0}


def batch_of(network: Network) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    key = "image" if len(network.shape) == 3 else "video"
    x = torch.randn(network.batch, *network.shape, generator=generator)
    return {key: x, "seed": torch.randint(2**62, (network.batch,), generator=generator)}


def ours(network: Network, every_token: bool = False) -> Step:
    recipe = build(network.recipe, **network.flags)
    objective: Any = recipe.objective.train()
    if every_token:
        objective.encoder = AllTokens(objective.encoder)
    batch = batch_of(network)
    return Step(objective, lambda: objective(batch)["loss"], make(objective, recipe.optimizer, torch.device("cpu")))


def _adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)


def transformers_videomae(network: Network) -> Step:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    encoder: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(encoder.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(encoder.decoder)
    _, frames, crop, _ = network.shape
    config = VideoMAEConfig(
        image_size=crop, num_frames=frames, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, decoder_hidden_size=decoder_width, decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=4 * decoder_width, norm_pix_loss=True,
        attn_implementation="sdpa",
    )  # fmt: skip
    model: Any = VideoMAEForPreTraining(config).train()
    x = batch_of(network)["video"].transpose(1, 2).contiguous()
    places, layers = (crop // 16) ** 2, frames // 2

    def loss() -> Tensor:
        masked = torch.rand(network.batch, places).argsort(1) >= places - int(0.9 * places)
        return model(x, bool_masked_pos=masked.repeat(1, layers)).loss

    return Step(model, loss, _adamw(model))


def transformers_mae(network: Network) -> Step:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    objective: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(objective.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(objective.decoder)
    config = ViTMAEConfig(
        image_size=network.shape[-1], hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, decoder_hidden_size=decoder_width, decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=4 * decoder_width, norm_pix_loss=True,
        attn_implementation="sdpa",
    )  # fmt: skip
    model: Any = ViTMAEForPreTraining(config).train()
    x = batch_of(network)["image"]
    return Step(model, lambda: model(x).loss, _adamw(model))


def lightly_mae(network: Network) -> Step:
    """As in lightly's example of MAE."""
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    objective: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(objective.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(objective.decoder)
    crop = network.shape[-1]
    vit = VisionTransformer(crop, 16, embed_dim=width, depth=depth, num_heads=heads, num_classes=0)
    places = (crop // 16) ** 2
    model = nn.ModuleDict(
        {
            "encoder": MaskedVisionTransformerTIMM(vit=vit),
            "decoder": MAEDecoderTIMM(
                num_patches=places, patch_size=16, embed_dim=width, decoder_embed_dim=decoder_width,
                decoder_depth=decoder_depth, decoder_num_heads=decoder_heads, mlp_ratio=4.0,
            ),
        }
    ).train()  # fmt: skip
    encoder: Any = model["encoder"]
    decoder: Any = model["decoder"]
    x = batch_of(network)["image"]

    def loss() -> Tensor:
        count = x.shape[0]
        keep, mask = utils.random_token_mask(size=(count, encoder.sequence_length), mask_ratio=0.75, device=x.device)
        encoded = decoder.embed(encoder.encode(images=x, idx_keep=keep))
        full = utils.repeat_token(decoder.mask_token, (count, encoder.sequence_length))
        full = utils.set_at_index(full, keep, encoded.type_as(full))
        predicted = decoder.predict(utils.get_at_index(decoder.decode(full), mask))
        target = utils.get_at_index(utils.patchify(x, 16), mask - 1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return nn.functional.mse_loss(predicted, target)

    return Step(model, loss, _adamw(model))


def _sizes(part: Any) -> tuple[int, int, int]:
    """Width, blocks and heads of a transformer of ours."""
    attention = part.blocks[0].attn
    return part.blocks[0].norm1.normalized_shape[0], len(part.blocks), attention.heads


CONTESTANTS: dict[str, dict[str, Callable[[Network], Step]]] = {
    "videomae S": {"transformers": transformers_videomae},
    "mae B": {"transformers": transformers_mae, "lightly": lightly_mae},
}


def measured(row: dict[str, Callable[[], Step]], rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Seconds of a step of each contestant in each round, and its peak memory.

    A contestant whose network is compiled as a whole is one more: the better of the two counts.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    ways = {name: (make_, False) for name, make_ in row.items()}
    if compiled:
        ways |= {f"{name}, compiled": (make_, True) for name, make_ in row.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    for number in range(rounds):
        for name, (make_, compile_) in list(ways.items())[:: -1 if number % 2 else 1]:
            torch.manual_seed(0)
            step = make_()
            if compile_:
                step.network.compile()
            step()
            began = clock()
            for _ in range(steps):
                step()
            seconds[name].append((clock() - began) / steps)
            if number == rounds - 1:
                memory[name] = peak(step, torch.device("cpu"))
            del step
            gc.collect()
    return {"seconds": {k: [round(s, 4) for s in v] for k, v in seconds.items()}, "peak_bytes": memory}


def ratios(seconds: dict[str, list[float]], against: str) -> dict[str, dict[str, Any]]:
    """Each contestant's time as a multiple of one's, within the rounds: median and quartiles."""
    found = {}
    for name, own in seconds.items():
        ratio = [a / b for a, b in zip(own, seconds[against], strict=True)]
        low, _, high = statistics.quantiles(ratio, n=4) if len(ratio) > 1 else [ratio[0]] * 3
        found[name] = {"median": round(statistics.median(ratio), 3), "quartiles": [round(low, 3), round(high, 3)]}
    return found


def bound(step: Step) -> list[dict[str, Any]]:
    """The dearest kernels of a step, as shares of it."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    events: list[Any] = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {"kernel": e.key, "calls": e.count, "share": round(e.self_cpu_time_total / total, 4)} for e in events[:KEPT]
    ]


def flops(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step.loss().backward()
    return counter.get_total_flops()


def shrunk(network: Network) -> Network:
    flags = TINY[network.recipe]
    shape = (3, *([flags["frames"]] if "frames" in flags else []), flags["crop"], flags["crop"])
    return Network(network.recipe, flags, shape, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="every contestant compiled, too")
    parser.add_argument("--tiny", action="store_true", help="networks that only show that everything runs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{machine()}, {asked.threads} threads"
    report = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": {}}
    if report.get("machine", where) != where:
        parser.error(f"{asked.out} was measured on {report['machine']}, this is {where}: name another file.")
    report |= {"date": time.strftime("%Y-%m-%d"), "machine": where, "versions": versions(), "rounds": asked.rounds}
    for name, network in {**PEERS, **SAVED}.items():
        if not name.startswith(asked.only):
            continue
        network = shrunk(network) if asked.tiny else network
        row: dict[str, Callable[[], Step]] = {"unveil": lambda network=network: ours(network)}
        if name in SAVED:
            row["every token"] = lambda network=network: ours(network, every_token=True)
        for peer, make_ in CONTESTANTS.get(name, {}).items():
            try:
                torch.manual_seed(0)
                make_(network)
            except ModuleNotFoundError as error:
                print(f"{name}: {peer} is left out: {error}")
                continue
            row[peer] = lambda make_=make_, network=network: make_(network)
        found = measured(row, asked.rounds, asked.steps, asked.compile)
        found |= {"batch": network.batch, "shape": network.shape, "flags": network.flags}
        found["times_unveil"] = ratios(found["seconds"], "unveil")
        found["parameters"] = {k: sum(p.numel() for p in make_().network.parameters()) for k, make_ in row.items()}
        if name in SAVED:
            found["flops"] = {contestant: flops(make_()) for contestant, make_ in row.items()}
            found["paper"] = PAPER.get(name)
        found["profile"] = bound(row["unveil"]())
        report["rows"][name] = found
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")
        print(name, json.dumps({k: found[k] for k in ("times_unveil", "peak_bytes")}), flush=True)


if __name__ == "__main__":
    main()

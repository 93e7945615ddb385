"""Small runs to export, of every kind there is, with weights far from their beginning; and signals to compare on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import unveil
from unveil.run import Run, load

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from serving_runs import IMAGE, VIDEO, make_run

CLASSES = ["cat", "dog", "<b>|`x`"]
#: Name → recipe and flags.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", {**IMAGE, "num_classes": 3}),
    "vit-clips": ("vit", {**VIDEO, "num_classes": 3, "pool": "mean"}),
    "beit": ("beit", {**IMAGE, "tokenizer_size": "debug", "vocab": 20}),
    "beit-finetune": ("beit:finetune", {**IMAGE, "num_classes": 3}),
    "beit-finetune-class": ("beit:finetune", {**IMAGE, "num_classes": 3, "pool": "class"}),
    "beit-finetune-absolute": (
        "beit:finetune",
        {**IMAGE, "num_classes": 3, "positions": "absolute", "layer_scale": 0.0},
    ),
    "mae": ("mae", IMAGE),
    "mae-plain": ("mae", {**IMAGE, "normalize": None, "ratio": 0.5}),
    "mae-finetune": ("mae:finetune", {**IMAGE, "num_classes": 3}),
    "mae-finetune-class": ("mae:finetune", {**IMAGE, "num_classes": 3, "pool": "class"}),
    "mae_st": ("mae_st", VIDEO),
    "videomae": ("videomae", VIDEO),
    "videomae-plain": ("videomae", {**VIDEO, "normalize": None}),
    "videomae-finetune": ("videomae:finetune", {**VIDEO, "num_classes": 3}),
}


def run_of(kind: str, folder: Path, **flags: Any) -> Run:
    """A run of a kind; nothing in it is zero, one, or small."""
    recipe, own = KINDS[kind]
    run = make_run(folder, recipe, own | flags, CLASSES if "num_classes" in own else None, multi_label=False)
    state = run.objective.state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, value in state.items():
        if value.is_floating_point() and ".positions." not in name:
            state[name] = value + 0.1 * torch.randn(value.shape, generator=generator)
    save_file(state, folder / "weights.safetensors")
    return load(folder, "cpu")


def batch_of(run: Run, count: int = 5, seed: int = 3) -> Tensor:
    data = run.recipe.data
    shape = (3, 4, 32, 32) if data.signal.key == "video" else (3, 32, 32)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def answer(run: Run, x: Tensor, encoder_only: bool = False) -> Tensor:
    """What the run itself says: logits, or features."""
    with torch.no_grad():
        if hasattr(run.objective, "logits") and not encoder_only:
            return run.objective.logits({run.recipe.data.signal.key: x})
        return run.encoder.pool(run.encoder(x))


__all__ = ["CLASSES", "KINDS", "answer", "batch_of", "run_of", "unveil"]

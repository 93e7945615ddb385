"""One set of properties that every recipe must have, whatever its parts.

A recipe is a function that returns a `Recipe`; `small` builds it tiny. Each `check_*` raises AssertionError with what is
wrong. `tests/test_recipes.py` runs all of them over `recipes.names()` and over each module's `finetune`.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unveil.encoders import shown, streams_of
from unveil.masking import Mask
from unveil.objectives import Objective
from unveil.recipe import Recipe

BATCH = 4
CROP = 32
FRAMES = 4
CLASSES = 5
POINTS = 80
SECONDS, RATE = 0.32, 16000
SMALL = {
    "size": "debug",
    "crop": CROP,
    "patch": 8,
    "frames": FRAMES,
    "num_classes": CLASSES,
    "context": 8,
    "vocabulary": 50,
    "tokenizer_size": "debug",
    "vocab": 64,
    "points": POINTS,
    "seconds": SECONDS,
    "rate": RATE,
    "bins": 32,
    "audio_patch": 8,
    "fusion_layers": 1,
    "group": 16,
    "neighbours": 4,
}
PLACEHOLDER = re.compile(r"TODO|XXX|lorem", re.IGNORECASE)


def flags_of(recipe: Callable[..., Recipe]) -> dict[str, Any]:
    """The flags of SMALL that this recipe has."""
    parameters = inspect.signature(recipe).parameters
    return {name: value for name, value in SMALL.items() if name in parameters}


def small(recipe: Callable[..., Recipe], seed: int = 0, **flags: Any) -> Recipe:
    """The recipe at debug size, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    return recipe(**flags_of(recipe) | flags)


def batch_for(objective: Objective, seed: int = 0) -> dict[str, Tensor]:
    """A batch with every key of the glossary that the objective's towers need; of several views their stack."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"image": (3, CROP, CROP), "video": (3, FRAMES, CROP, CROP), "points": (3, POINTS)}
    shapes["audio"] = (1, round(SECONDS * RATE))
    views = [objective.views] if objective.views > 1 else []
    streams = dict.fromkeys(name for key, tower in objective.towers.items() for name in streams_of(tower, key))
    signals = [key for key in streams if key != "text"]
    batch = {key: torch.randn(BATCH, *views, *shapes[key], generator=generator) for key in signals}
    if text := objective.towers.get("text"):
        ids = torch.randint(1, text.embed.num_embeddings, (BATCH, text.context), generator=generator)
        batch["text"] = ids * (
            torch.arange(text.context) < 4 + torch.arange(BATCH)[:, None]
        )  # of different lengths, padded with 0
    batch["index"] = torch.arange(BATCH)
    batch["seed"] = torch.randint(2**62, (BATCH,), generator=generator)
    batch["label"] = torch.arange(BATCH) % CLASSES
    return batch


def signal_of(objective: Objective, batch: dict[str, Tensor], key: str) -> Any:
    """What a tower takes: of several views the first; of several streams all it looks at."""
    tower = objective.towers[key]
    return shown(
        tower, {name: x[:, 0] for name, x in batch.items() if x.ndim > 2} if objective.views > 1 else batch, key
    )


def mask_for(objective: Any, batch: dict[str, Tensor]) -> Any:
    """What the objective masks: a Mask, or one for each tower that has any; None if it masks nothing."""
    return objective.masked(batch) if hasattr(objective, "masked") else None


def masks_in(mask: Any) -> list[Mask]:
    return [mask] if isinstance(mask, Mask) else list((mask or {}).values())


def check_docstring(recipe: Callable[..., Recipe]) -> None:
    """Module: title, authors, venue, year, arXiv, published number, command. Function: a line, and every flag."""
    module = inspect.getdoc(inspect.getmodule(recipe))
    assert module, "the module has no docstring"
    first, second = module.splitlines()[:2]
    assert re.match(r"[\w-]+: .+\.$", first), f"the first line is not 'Name: title.': {first!r}"
    assert re.search(r"\w, \w", second), f"the second line holds no authors: {second!r}"
    head = "\n".join(module.splitlines()[:4])
    assert re.search(r"\b[A-Z][A-Za-z]+ (19|20)\d\d\.", head), "no venue and year"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", head), "no arXiv number"
    assert re.search(r"Published: .*\d", module), "no published number"
    assert re.search(rf"unveil \w+ {Path(inspect.getfile(recipe)).stem} --data", module), "no command"
    assert not PLACEHOLDER.search(module)

    function = inspect.getdoc(recipe)
    assert function, "the function has no docstring"
    assert "Args:" in function, "the flags are not documented"
    documented = set(re.findall(r"^    (\w+): \w", function.split("Args:")[1], re.MULTILINE))
    assert documented == set(inspect.signature(recipe).parameters), "documented flags are not the flags"


def check_flags(recipe: Callable[..., Recipe]) -> None:
    """Every flag has a type and a default, so that the command line can be made of them."""
    for name, parameter in inspect.signature(recipe).parameters.items():
        assert parameter.annotation is not parameter.empty, f"--{name} has no type"
        assert parameter.default is not parameter.empty, f"--{name} has no default"


def check_meta(recipe: Callable[..., Recipe]) -> None:
    """With its own defaults, at its published size, it builds without any memory for weights."""
    with torch.device("meta"):
        objective = recipe().objective
    assert all(parameter.is_meta for parameter in objective.parameters())


def check_gradients(recipe: Callable[..., Recipe]) -> None:
    """Forward and backward are finite, and every trainable parameter gets a gradient that is not all zero.

    What acts only on tokens that the head does not read (the last pooling of queries, where a class token answers) gets its
    gradient from those tokens; a branch whose last factors begin at zero has one at the second step only.
    """
    objective = small(recipe).objective.train()
    batch = batch_for(objective)
    learned = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    still = set(learned)
    for _ in range(2):
        objective.zero_grad()
        answer = objective(batch)
        assert answer["loss"].ndim == 0
        assert all(value.numel() == 1 and value.isfinite() for value in answer.values())
        answer["loss"].backward()
        for name, parameter in learned.items():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        still = {name for name in still if not cast(Tensor, learned[name].grad).any()}
        for key, encoder in objective.towers.items() if still else ():
            encoder(signal_of(objective, batch, key)).x.square().mean().backward()
        still = {name for name in still if not cast(Tensor, learned[name].grad).any()}
        with torch.no_grad():
            for parameter in learned.values():
                parameter -= 0.1 * cast(Tensor, parameter.grad)
    assert not still, f"the gradient is zero of {', '.join(sorted(still))}"


def check_towers(recipe: Callable[..., Recipe]) -> None:
    """What outlives training is named by its signal, knows its layers, and pools to its width."""
    objective = small(recipe).objective.eval()
    batch = batch_for(objective)
    assert objective.towers
    for key, encoder in objective.towers.items():
        features = encoder(signal_of(objective, batch, key))
        assert encoder.pool(features).shape == (BATCH, encoder.width)
        early = encoder(signal_of(objective, batch, key), layer=1)
        assert encoder.pool(early).shape == (BATCH, early.x.shape[-1])
        layers = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
        assert set(range(encoder.depth + 1)) <= layers <= set(range(encoder.depth + 2))


def check_learns(recipe: Callable[..., Recipe], steps: int = 20) -> None:
    """Twenty steps on one batch, with its mask held still, lower the loss."""
    objective = small(recipe).objective.eval()
    batch = batch_for(objective)
    mask = mask_for(objective, batch)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        objective.before_step(step / steps)
        loss = objective(batch, mask=mask)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step((step + 1) / steps)
        losses.append(loss.item())
    # A density's logarithm may be negative: then a twentieth of its size.
    assert losses[-1] < losses[0] - 0.05 * abs(losses[0]), f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}"


def check_state(recipe: Callable[..., Recipe], folder: Path) -> None:
    """Saved as safetensors and loaded into a network of other weights, it gives the same loss, bit for bit."""
    saved = small(recipe, seed=0).objective.eval()
    loaded = small(recipe, seed=1).objective.eval()
    batch = batch_for(saved)
    assert not torch.equal(saved(batch)["loss"], loaded(batch)["loss"])
    save_file(saved.state_dict(), folder / "weights.safetensors")
    loaded.load_state_dict(load_file(folder / "weights.safetensors"))
    assert torch.equal(saved(batch)["loss"], loaded(batch)["loss"])


def check_seed(recipe: Callable[..., Recipe]) -> None:
    """The same seed gives the same loss, also in training mode; another seed another."""

    def loss(seed: int) -> Tensor:
        objective = small(recipe, seed=seed).objective.train()
        return objective(batch_for(objective))["loss"]

    assert torch.equal(loss(0), loss(0))
    assert not torch.equal(loss(0), loss(1))


def check_masks(recipe: Callable[..., Recipe]) -> None:
    """A sample's mask depends on its own seed alone, not on its neighbours in the batch."""
    objective = small(recipe).objective
    batch = batch_for(objective)
    whole = masks_in(mask_for(objective, batch))
    halves = masks_in(mask_for(objective, {key: value[2:] for key, value in batch.items()}))
    for mask, half in zip(whole, halves, strict=True):
        assert torch.equal(mask.masked[2:], half.masked)
        assert len({tuple(row) for row in mask.masked.tolist()}) > 1


def check_checkpointing(recipe: Callable[..., Recipe]) -> None:
    """Recomputing activations changes neither the loss nor a gradient, and moves running statistics once."""
    gradients, buffers = [], []
    for recompute in (False, True):
        objective = small(recipe).objective.train()
        for module in objective.modules():
            if hasattr(module, "checkpointing"):
                module.checkpointing = recompute
        torch.manual_seed(7)
        loss = objective(batch_for(objective))["loss"]
        loss.backward()
        gradients.append([loss.detach(), *[p.grad for p in objective.parameters()]])
        buffers.append(list(objective.buffers()))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
    for plain, recomputed in zip(*buffers, strict=True):
        assert torch.equal(recomputed, plain)

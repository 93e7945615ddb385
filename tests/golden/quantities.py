"""What of ours is compared: quantities of a pass, and parts that a reference has by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.decoders import LinearDecoder, TransformerDecoder, WindowDecoder
from unveil.losses import similarities
from unveil.masking import Mask
from unveil.objectives import Supervised
from unveil.targets import HOG
from unveil.tokens import Patchify, coordinates, unravel


@dataclass
class Pass:
    """One pass of ours over the reference's input."""

    objective: Any
    batch: dict[str, Tensor]
    mask: Mask | None
    labels: Tensor | None

    @property
    def x(self) -> Tensor:
        return self.batch[self.objective.key]

    @property
    def grid(self) -> tuple[int, ...]:
        return self.objective.encoder.mask_grid(self.x)

    def tokens(self, layer: int | None = None) -> Any:
        return self.objective.encoder(self.x, self.mask, layer=layer)


QUANTITIES: dict[str, Callable[..., Tensor]] = {}


def quantity(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    QUANTITIES[function.__name__] = function
    return function


@quantity
def loss(run: Pass) -> Tensor:
    """Of the objective; of labels the plain cross-entropy, binary of several: smoothing belongs to a training, not to a network."""
    if "token_ids" in run.batch:  # in the place of a tokenizer's
        assert run.mask is not None
        wanted = run.batch["token_ids"].long().gather(1, run.mask.masked)
        return run.objective.loss(run.objective.predict(run.batch, run.mask)[0], wanted)
    if isinstance(run.objective, Supervised):
        assert run.labels is not None, "the yaml file gives no labels"
        kind = (
            functional.binary_cross_entropy_with_logits if run.labels.is_floating_point() else functional.cross_entropy
        )
        return kind(logits(run), run.labels)
    return run.objective(run.batch, mask=run.mask)["loss"]


@quantity
def completion_loss(run: Pass, part: str = "loss") -> Tensor:
    """Of a completed cloud, the sum over the samples."""
    return run.objective(run.batch, mask=run.mask)[part] * len(run.x)


@quantity
def completed(run: Pass, part: str) -> Tensor:
    """Of a completed cloud: its centres, its points (channels first), the vector they are made of."""
    found = getattr(run.objective.complete(run.batch, run.mask)[0], part)
    return found.transpose(1, 2) if found.ndim == 3 else found


@quantity
def places(run: Pass) -> Tensor:
    """Of the tokens, in space."""
    return run.objective.encoder.places(run.x)


@quantity
def tokens(run: Pass, layer: str | None = None) -> Tensor:
    """What the encoder gives, class token in front."""
    return run.tokens(None if layer is None else int(layer)).sequence()


@quantity
def patches(run: Pass) -> Tensor:
    """What the encoder gives, without class token."""
    return run.tokens().x


@quantity
def embedded(run: Pass) -> Tensor:
    """Patches after their embedding, before positions."""
    return run.objective.encoder.embed(run.objective.encoder.patchify(run.x).x)


@quantity
def part(run: Pass) -> Tensor:
    """What a part alone makes of the input."""
    return run.objective(run.batch)


@quantity
def predictions(run: Pass) -> Tensor:
    """At all places of the grid, in its order."""
    assert run.mask is not None
    if isinstance(
        run.objective.decoder, LinearDecoder | WindowDecoder
    ):  # all places have answers, whichever are asked for
        seen = run.tokens()
        return run.objective.decoder(seen, coordinates(seen.grid).expand(len(run.x), -1, -1))
    assert isinstance(run.objective.decoder, TransformerDecoder)
    seen = run.tokens()
    found = run.objective.decoder(seen, unravel(run.mask.masked, seen.grid), visible_too=True)
    where = torch.cat(run.mask, dim=1)[..., None].expand_as(found)
    return torch.empty_like(found).scatter(1, where, found)


@quantity
def decoded(run: Pass) -> Tensor:
    """What the decoder's last norm gives, at all places of the grid, in its order."""
    found: list[Tensor] = []
    head = run.objective.decoder.head.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    predictions(run)
    head.remove()
    assert run.mask is not None
    where = torch.cat(run.mask, dim=1)[..., None].expand_as(found[0])
    return torch.empty_like(found[0]).scatter(1, where, found[0])


@quantity
def table(run: Pass, part: str) -> Tensor:
    """Of the positions of `part` (encoder, decoder), all of it."""
    return run.objective.get_submodule(part).positions.table[None]


@quantity
def masked_predictions(run: Pass, samples: str = "apart") -> Tensor:
    """At the masked places alone; those of all samples "together"."""
    found = run.objective.predict(run.batch, run.mask)[0]
    return found.flatten(0, 1) if samples == "together" else found


@quantity
def masked_targets(run: Pass) -> Tensor:
    """What is to be predicted at the masked places of all samples together."""
    _, grid, indices = run.objective.predict(run.batch, run.mask)
    return run.objective.target(run.batch, grid, indices).flatten(0, 1)


@quantity
def mask(run: Pass, shape: str = "flat") -> Tensor:
    """1 where the signal is masked; as a "grid"."""
    assert run.mask is not None
    total = torch.Size(run.grid).numel()
    found = torch.zeros(len(run.mask.masked), total).scatter(1, run.mask.masked, 1.0)
    return found.unflatten(1, run.grid) if shape == "grid" else found


@quantity
def target_patches(run: Pass) -> Tensor:
    """All patches of what is to be predicted, before they are normalised."""
    target = run.objective.target
    return target.patchify(target.signal(run.batch, run.grid)).x


@quantity
def positions(run: Pass, part: str, kind: str = "") -> Tensor:
    """Of `part` (encoder, decoder) at all places; "class" puts the class token's row of zeros in front."""
    table = run.objective.get_submodule(part).positions(coordinates(run.grid)[None], run.grid)
    return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1) if kind == "class" else table


@quantity
def distances(run: Pass, block: str = "") -> Tensor:
    """Which row of its table of relative positions each pair of tokens has; of a block, where each has a table."""
    bias = run.objective.encoder.attention_bias
    bias = bias[int(block)] if block else bias
    return bias.rows(coordinates(run.grid)[None], run.grid)[0]


@quantity
def logits(run: Pass) -> Tensor:
    return run.objective.logits(run.batch, **({} if run.mask is None else {"mask": run.mask}))


@quantity
def probabilities(run: Pass) -> Tensor:
    """Of the classes, as one label each."""
    return run.objective.logits(run.batch).softmax(1)


@quantity
def at(run: Pass, path: str, part: str = "") -> Tensor:
    """What the module at `path` gives when the objective answers (of several tensors the one numbered `part`)."""
    found: list[Any] = []
    module = run.objective.get_submodule(path)
    hook = module.register_forward_hook(lambda module, given, result: found.append(result))
    run.objective.logits(run.batch)
    hook.remove()
    assert len(found) == 1, f"{path} was called {len(found)} times"
    result = found[0]
    return result if isinstance(result, Tensor) else result.sequence() if part == "" else result[int(part)]


@quantity
def after(run: Pass, path: str) -> Tensor:
    """The buffer at `path` once the objective has answered: running statistics in training."""
    run.objective.logits(run.batch)
    return run.objective.get_buffer(path)


@quantity
def features(run: Pass) -> Tensor:
    """What the encoder hands to the head."""
    return run.objective.encoder.pool(run.tokens())


@quantity
def projected(run: Pass, key: str) -> Tensor:
    """Features of a tower in the space that it shares with another, before they are normalised."""
    return run.objective.features(key, run.batch[key])


@quantity
def logits_of_pairs(run: Pass) -> Tensor:
    """Of each image with each text, as the loss takes them."""
    image, text = (run.objective.embed(key, run.batch[key]) for key in ("image", "text"))
    return run.objective.logit_scale.exp() * image @ text.T


@quantity
def projection(run: Pass, view: str) -> Tensor:
    """Of a view, before it is normalised."""
    return run.objective.features(run.batch)[0][int(view)]


@quantity
def query(run: Pass, view: str) -> Tensor:
    """Of a view, before it is normalised."""
    return run.objective.features(run.batch)[1][int(view)]


@quantity
def answer(run: Pass, view: str) -> Tensor:
    """The key of a view, before it is normalised."""
    return run.objective.features(run.batch)[2][int(view)]


@quantity
def scaled_similarities(run: Pass) -> Tensor:
    """Of the first queries with their keys and with the queue's, divided by the temperature."""
    _, queries, keys = run.objective.features(run.batch)
    ours, theirs = functional.normalize(queries[0], dim=1), functional.normalize(keys[-1], dim=1)
    return similarities(ours, theirs, run.objective.queue.keys) * run.objective.loss.keywords["scale"]


@quantity
def queue(run: Pass) -> Tensor:
    """After the step, key by key."""
    run.objective(run.batch)
    run.objective.after_step(0.0)
    return run.objective.queue.keys.T


@quantity
def next_place(run: Pass) -> Tensor:
    """In the queue, after the step."""
    run.objective(run.batch)
    run.objective.after_step(0.0)
    return run.objective.queue.count % run.objective.queue.size


class Histograms(nn.Module):
    """The target of MaskFeat alone, at all places of an image."""

    def __init__(self, patch: int, **options: Any):
        super().__init__()
        self.target = HOG(Patchify(patch, patch, channels=3), "image", **options)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """[B, 3, H, W] → [B, 3, bins, H / cell, W / cell]."""
        grid = self.target.patchify.grid(batch["image"].shape)
        places = torch.arange(torch.Size(grid).numel()).expand(len(batch["image"]), -1)
        found = self.target(batch, grid, places)
        cells = self.target.patchify.size[0] // self.target.cell
        colours = found.view(-1, *grid, 3, self.target.bins, cells, cells)
        return colours.permute(0, 3, 4, 1, 5, 2, 6).flatten(5).flatten(3, 4)


PARTS: dict[str, Callable[..., nn.Module]] = {"histograms": Histograms}

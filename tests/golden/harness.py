"""Compare a recipe with a golden file, of whatever system: by the system's name map and a few facts in `<system>.yaml`.

The reference's tensors are made again as leaves of the graph and go through `unveil.weights.convert` into our objective, so that
gradients come out with respect to the reference's own parameters. Then each number of the file is one *quantity* of ours.

`<system>.yaml`:

    hints:       flags of the network that shapes do not tell; {constructor: KEY} takes the reference's own
    mask:        {rule: a name of MASKS, and its arguments}, where the reference masks
    scale:       what its input is multiplied by
    views:       the reference's inputs that are the views of a sample, in order
    stills:      the reference's pictures that are clips here, of how many equal frames: input → frames
    labels:      of the two samples, where its loss takes some
    inputs:      our key of a batch → the reference's input, where it has another name
    quantities:  output of the reference → quantity of ours with its arguments, one word each; an output that is not here goes
                 by its own name
    left_out:    output → why it is not compared
    variants:    variant → hints and quantities of its own, or part: {name: of PARTS, and its arguments}, where the file is of a part
                 alone and has no parameters
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import yaml
from reference import HERE, Deviation, Golden, deviation, inputs_of, read, state_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from unveil import recipes, weights
from unveil.decoders import LinearDecoder, TransformerDecoder
from unveil.flags import assemble, expand
from unveil.losses import similarities
from unveil.masking import Mask
from unveil.objectives import Masked, Objective, Supervised
from unveil.targets import HOG
from unveil.tokens import Patchify, coordinates, unravel

#: Buffers of batch normalisation, which a pass in training changes; an output `NAME after` is such a buffer's new value.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
AFTER = " after"


class Compared(NamedTuple):
    """One number or tensor of the reference, and how far ours is from it."""

    output: str
    quantity: str
    deviation: Deviation


#: What `<system>.yaml` may say, and what it may say of one variant.
FACTS = {"hints", "mask", "views", "labels", "inputs", "scale", "stills", "quantities", "left_out", "variants"}
OWN_FACTS = {"hints", "mask", "quantities"}
PART = "part"


def facts_of(golden: Golden) -> dict[str, Any]:
    """What `<system>.yaml` says of this file."""
    facts = yaml.safe_load((HERE / f"{golden['system']}.yaml").read_text())
    own = facts.get("variants", {}).get(golden["variant"], {})
    if strange := (facts.keys() - FACTS) | (own.keys() - OWN_FACTS - {PART}):
        raise NotImplementedError(f"{golden['system']}.yaml: what is {', '.join(sorted(strange))}?")
    return facts | {fact: facts.get(fact, {}) | own.get(fact, {}) for fact in OWN_FACTS} | {PART: own.get(PART)}


def value_of(golden: Golden, value: Any) -> Any:
    """A fact as it stands, or, where it says so, the reference's own."""
    return golden["constructor"].get(value["constructor"]) if isinstance(value, dict) else value


# Masks: what the reference made of its noise. Visible places in the order in which it keeps them, masked ones ascending.


def smallest_visible(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The places with the smallest noise stay, in that order (MAE, MAE-ST)."""
    order = noise.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return Mask(order[:, :keep], order[:, keep:].sort().values)


def tubes(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The same places at all times, those with the smallest noise visible, in the grid's order (VideoMAE)."""
    places = noise.shape[1]
    keep = places - int(ratio * places)
    step = torch.arange(grid[0])[:, None] * places
    parts = noise.argsort(dim=1).tensor_split([keep], dim=1)
    return Mask(*((part.sort().values[:, None] + step).flatten(1) for part in parts))


def largest_masked(noise: Tensor, grid: tuple[int, ...], ratio: float) -> Mask:
    """The places with the largest noise are hidden, as many as the share rounded down; both in the grid's order (MaskFeat, on the grid
    that masks are drawn on; BEiT)."""
    assert tuple(noise.shape[1:]) in (tuple(grid), (torch.Size(grid).numel(),)), (
        f"masks of {tuple(noise.shape[1:])}, ours: {grid}"
    )
    order = noise.flatten(1).argsort(dim=1, descending=True)
    parts = order.tensor_split([int(ratio * order.shape[1])], dim=1)
    return Mask(parts[1].sort().values, parts[0].sort().values)


def smallest_visible_together(noise: Tensor, grid: tuple[int, ...], ratio: float, batch: int) -> Mask:
    """One order for all samples: the places with the smallest noise stay, in that order (MAE3D at random)."""
    order = noise.argsort().expand(batch, -1)
    visible, masked = order.tensor_split([order.shape[1] - int(order.shape[1] * ratio)], dim=1)
    return Mask(visible, masked.sort().values)


def about_centre(places: Tensor, grid: tuple[int, ...], ratio: float, centre: int) -> Mask:
    """The places nearest to one of them are hidden (MAE3D in blocks)."""
    order = (places - places[:, centre, None]).square().sum(-1).argsort(dim=1)
    masked, visible = order.tensor_split([int(order.shape[1] * ratio)], dim=1)
    return Mask(visible.sort().values, masked.sort().values)


MASKS: dict[str, Callable[..., Mask]] = {
    "smallest_visible_together": smallest_visible_together,
    "about_centre": about_centre,
    "smallest_visible": smallest_visible,
    "tubes": tubes,
    "largest_masked": largest_masked,
}


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
    """Of the objective; of labels the plain cross-entropy, since smoothing belongs to a training, not to a network."""
    if "token_ids" in run.batch:  # in the place of a tokenizer's
        assert run.mask is not None
        wanted = run.batch["token_ids"].long().gather(1, run.mask.masked)
        return run.objective.loss(run.objective.predict(run.batch, run.mask)[0], wanted)
    if isinstance(run.objective, Supervised):
        assert run.labels is not None, "the yaml file gives no labels"
        return functional.cross_entropy(run.objective.logits(run.batch), run.labels)
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
    if isinstance(run.objective.decoder, LinearDecoder):
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
    return run.objective.logits(run.batch)


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


class _Probe(nn.Module):
    """Computes quantities of an objective in one call, so that its parameters can be exchanged for that call."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def forward(self, wanted: dict[str, str], **run: Any) -> dict[str, Tensor]:
        if isinstance(self.objective, Objective):  # a part alone takes no steps
            self.objective.before_step(0.0)
        passed = Pass(self.objective, **run)
        found = {}
        for output, said in wanted.items():
            name, *arguments = said.split()
            if name not in QUANTITIES:
                raise NotImplementedError(f"nothing of ours is registered for the output {output!r} ({said})")
            found[output] = QUANTITIES[name](passed, *arguments)
        return found


def build(golden: Golden, state: dict[str, Tensor]) -> tuple[Objective, dict[str, Tensor]]:
    """Our network for a golden file, and its tensors as functions of the reference's.

    Raises:
        AssertionError: a parameter of ours has no counterpart, or one of the reference's none here.
    """
    facts = facts_of(golden)
    if facts[PART] is not None:
        assert not state, f"a part without parameters has {', '.join(state)}"
        arguments = dict(facts[PART])
        return cast(Any, PARTS[arguments.pop("name")](**arguments)), {}
    hints = {key: value_of(golden, value) for key, value in facts["hints"].items()}
    hints = {key: value for key, value in hints.items() if not (value is None and key.endswith("num_heads"))}
    converted = weights.convert(golden["system"], state, **hints)
    assert not converted.unused, f"left over: {converted.unused}"
    function = recipes.find(converted.recipe)
    flags = {key: value for key, value in hints.items() if key not in weights.HINTS}
    objective = cast(Any, assemble(function, expand(function, None, {**converted.flags, **flags})).objective)
    own = dict(objective.named_parameters()) | dict(objective.named_buffers())
    strange = {name for name in converted.state if name not in own or own[name].shape != converted.state[name].shape}
    assert not strange, f"of no use here: {strange}"
    learned = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    missing = learned - converted.state.keys()
    assert not missing, f"not of the reference: {missing}"
    return objective, converted.state


def compare(name: str, weights_salt: str = "", inputs_salt: str = "") -> list[Compared]:
    """Every output, fixed table and gradient of a golden file against ours.

    Args:
        name: of the file.
        weights_salt, inputs_salt: compute ours from other weights or inputs: then it has to differ.
    """
    golden = read(name)
    facts, noise = facts_of(golden), golden.get("float32_vs_float64", {})
    state = state_of(golden, weights_salt)
    for parameter, tensor in state.items():
        tensor.requires_grad_(tensor.is_floating_point() and not parameter.endswith(STATISTICS))
    objective, ours = build(golden, state)
    objective.train(golden["mode"] != "eval")
    inputs = inputs_of(golden, inputs_salt)
    for picture, frames in facts.get("stills", {}).items():
        if picture in inputs:
            (key,) = objective.towers
            inputs[key] = inputs.pop(picture).unsqueeze(2).expand(-1, -1, frames, -1, -1)
    if facts[PART] is not None:
        batch = dict(inputs)
    elif "views" in facts:
        (key,) = objective.towers
        batch = {key: torch.stack([inputs[view] for view in facts["views"]], dim=1)}
    else:
        batch = {key: inputs[facts.get("inputs", {}).get(key, key)] for key in objective.towers}
    if "scale" in facts:
        (key,) = objective.towers
        batch[key] = batch[key] * facts["scale"]
    batch |= {name: x for name, x in inputs.items() if name == "token_ids"}

    mask = None
    if isinstance(objective, Masked):
        how = {fact: value_of(golden, value) for fact, value in facts["mask"].items()}
        x = batch[objective.key]
        rule = MASKS[how.pop("rule")]
        asked = inspect.signature(rule).parameters
        known = {"noise": inputs.get("noise"), "batch": len(x)}
        if "places" in asked:
            known["places"] = objective.encoder.places(x)
        grid = objective.encoder.mask_grid(x)
        mask = rule(grid=grid, **{name: value for name, value in known.items() if name in asked}, **how)
    labels = torch.tensor(facts["labels"]) if "labels" in facts else None

    expected = {output: (theirs, noise.get(output, 0.0)) for output, theirs in golden["outputs"].items()}
    expected |= {table: (theirs, 0.0) for table, theirs in golden.get("kept_summaries", {}).items()}
    expected = {output: value for output, value in expected.items() if output not in facts.get("left_out", {})}
    wanted = {output: facts.get("quantities", {}).get(output, output) for output in expected}
    wanted |= {output: f"after {_ours(output, state, ours)}" for output in expected if output.endswith(AFTER)}
    run = {"batch": batch, "mask": mask, "labels": labels}
    found = {}
    learned = {part for part, own in objective.named_parameters() if own.requires_grad}
    for output, said in wanted.items():  # one pass each, from the same statistics, momentum encoders, queues
        whole = {f"objective.{part}": t if part in learned else t.clone() for part, t in ours.items()}
        found |= functional_call(_Probe(objective), whole, ({output: said},), run)

    gradients = golden.get("more_gradients", {})
    slopes: tuple[Tensor, ...] = ()
    if golden["gradient"] is not None:
        scalar = _scalar(golden["gradient"].get("loss", "loss"), found)
        gradients = {golden["gradient"]["name"]: golden["gradient"]} | gradients
        slopes = torch.autograd.grad(scalar, [state[parameter] for parameter in gradients])
    rows = [
        Compared(output, wanted[output], deviation(found[output], theirs, rounding))
        for output, (theirs, rounding) in expected.items()
    ]
    for (parameter, theirs), slope in zip(gradients.items(), slopes, strict=True):
        rounding = noise.get(f"gradient:{parameter}", noise.get("gradient", 0.0))
        rows.append(Compared(f"gradient of {parameter}", "gradient", deviation(slope, theirs, rounding)))
    return rows


def _ours(output: str, state: dict[str, Tensor], ours: dict[str, Tensor]) -> str:
    """Our name of the buffer that the reference's output `NAME after` is of."""
    buffer = state[output.removesuffix(AFTER)]
    return next(name for name, tensor in ours.items() if tensor is buffer)


def _scalar(formula: str, found: dict[str, Tensor]) -> Tensor:
    """What the reference differentiated: an output, or `OUTPUT.square().mean()`."""
    match = re.fullmatch(r"(\w+)(\.square\(\)\.mean\(\))?", formula)
    if match is None:
        raise NotImplementedError(f"the harness does not know the loss {formula!r}")
    return found[match[1]].square().mean() if match[2] else found[match[1]]

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
from typing import Any, NamedTuple, cast

import torch
import yaml
from masks import MASKS
from quantities import PARTS, QUANTITIES, Pass
from reference import HERE, Deviation, Golden, deviation, inputs_of, read, state_of
from torch import Tensor, nn
from torch.func import functional_call

from unveil import recipes, weights
from unveil.flags import assemble, expand
from unveil.objectives import Masked, Objective

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
    if isinstance(objective, Masked) or getattr(objective, "masker", None) is not None:
        how = {fact: value_of(golden, value) for fact, value in facts["mask"].items()}
        x = batch[objective.key]
        rule = MASKS[how.pop("rule")]
        asked = inspect.signature(rule).parameters
        known = {"noise": None, "batch": len(x)} | inputs
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

"""What of a run is exported: one module from a normalised signal to one answer, with its names, shapes and a description."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from unveil.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unveil.run import Run

Part = Literal["whole", "encoder"]

#: Largest difference between a run's answers and its export's, in units of the largest answer.
TOLERANCE = 1e-4
SIGNALS = 3


class Logits(nn.Module):
    """Normalised signal [B, C, *S] → logits [B, classes]."""

    def __init__(self, objective: nn.Module, key: str):
        super().__init__()
        self.objective = objective
        self.key = key

    def forward(self, signal: Tensor) -> Tensor:
        return cast(Any, self.objective).logits({self.key: signal})


class Features(nn.Module):
    """Normalised signal [B, C, *S] → pooled features [B, D], as the encoder itself pools."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, signal: Tensor) -> Tensor:
        return cast(Any, self.encoder).pool(self.encoder(signal))


class Shared(nn.Module):
    """Normalised signal [B, C, *S] → features in the space shared with texts [B, D]."""

    def __init__(self, objective: nn.Module, key: str):
        super().__init__()
        self.encoder = cast(Any, objective).towers[key]
        self.projection = objective.get_submodule(f"projections.{key}")

    def forward(self, signal: Tensor) -> Tensor:
        return self.projection(self.encoder.pool(self.encoder(signal)))


class Network(NamedTuple):
    """What is exported.

    Attributes:
        module: `Logits`, `Features` or `Shared`, in eval mode, on the CPU, in float32.
        input: name of what goes in: the signal's key.
        output: "logits" or "features".
        shape: of one signal [C, *S].
        description: what one needs to know to use it, as plain values.
    """

    module: nn.Module
    input: str
    output: str
    shape: tuple[int, ...]
    description: dict[str, Any]


def network_of(run: Run, part: Part, files: Sequence[Path] | None = None) -> Network:
    """The network of a run, and what it takes and gives.

    Args:
        run: opened on the CPU.
        part: "whole" is a classifier's logits, of two towers the features in their shared space, and the features of whatever has
            no classes; "encoder" the features.
        files: of the kind that it shall take, where its signal is of several; None for what the run learned from.
    """
    recipe = run.recipe
    data, key = recipe.data, recipe.data.signal.key
    classifies = part == "whole" and hasattr(recipe.objective, "logits")
    classes = run.trained_classes() if classifies else []
    shares = part == "whole" and "text" in recipe.objective.towers
    network = deepcopy(recipe.objective if classifies or shares else run.encoder).float().eval()
    module = Logits(network, key) if classifies else Shared(network, key) if shares else Features(network)
    shape = shape_of(run, files)
    output = "logits" if classifies else "features"
    with torch.inference_mode():
        width = module(torch.zeros(1, *shape)).shape[1]
    training = {"training", *(name for name in data.described() if name.startswith("view "))}
    described = {name: value for name, value in data.described().items() if name not in training}
    description = {
        "made_with": f"unveil {run.info['versions']['unveil']}",
        "recipe": run.info["recipe"],
        "flags": run.info["flags"],
        "input": {"name": key, "shape": ["batch", *shape], "dtype": "float32"},
        "output": {"name": output, "shape": ["batch", width], "dtype": "float32"},
        "preprocessing": {**described, "values": data.signal.values},
        "classes": classes,
        "multi_label": bool(run.info.get("multi_label")) if classifies else False,
        "licence_of_start": run.info.get("licence_of_start"),
    }
    return Network(module.eval(), key, output, shape, description)


def shape_of(run: Run, files: Sequence[Path] | None) -> tuple[int, ...]:
    """Of one signal [C, *S]; where a signal is of several kinds, of that which most of the files are.

    Args:
        run: with the recipe that reads them.
        files: None for those that the run learned from.

    Raises:
        UserError: one of the `files` is not there.
    """
    from unveil.data import Manifest, Row
    from unveil.data.visual import SeveralKinds, kinds_of
    from unveil.serve import windows
    from unveil.serve.samples import manifest_of

    data = run.recipe.data
    blank = data.signal.blank()
    if isinstance(data.signal, SeveralKinds):
        manifest = manifest_of(run)
        if files is not None:
            found = windows.files(files, data.signal.suffixes)
            manifest = Manifest.of(Row(str(path)) for path in found if isinstance(path, Path))
        kinds = None if manifest is None else kinds_of(data.signal, manifest)
        if kinds is not None and len(kinds):
            blank = data.signal.blanks()[np.bincount(kinds).argmax()]
    return tuple(windows.prepared(data, blank).shape)


def signals(run: Run, files: Sequence[Path] | None) -> tuple[Tensor, str]:
    """A few signals on which a run and its export are compared, float32 [n, C, *S], and what they are, as a phrase.

    All are of the shape that is exported. Each comes a second time, mirrored (of a cloud: its points the other way
    round), so that there are always several.

    Args:
        run: with the recipe that reads them.
        files: what to read; None for files that the run held out or learned from, as far as they are still there.

    Raises:
        UserError: one of the `files` is not there, or none can be read.
    """
    shape = shape_of(run, files)
    found, names = _own(run, shape) if files is None else _read(run, files, shape)
    if found:
        what = f"{len(found)} real signals ({', '.join(dict.fromkeys(names))}) and their mirror images"
    else:
        generator = torch.Generator().manual_seed(0)
        found = list(torch.randn(SIGNALS, *shape, generator=generator))
        what = "noise (the run's own files are not there; --data names others)"
    x = torch.stack(found)
    return torch.cat([x, x.flip(-1)]), what


def _read(run: Run, files: Sequence[Path], shape: tuple[int, ...]) -> tuple[list[Tensor], list[str]]:
    """The first windows of files, and the files' names."""
    from unveil.serve.windows import BadFile, stream

    found: list[Tensor] = []
    names: list[str] = []
    bad: list[str] = []
    for item in stream(run.recipe.data, files, None, 1):
        if isinstance(item, BadFile):
            bad.append(item.error)
            continue
        if tuple(item.x.shape[1:]) != shape:
            bad.append(
                f"{item.windows[0].path}: its signal is {list(item.x.shape[1:])}, what is exported takes {list(shape)}."
            )
            continue
        found.append(item.x[0])
        names.append(Path(item.windows[0].path).name)
        if len(found) == SIGNALS:
            break
    if not found:
        raise UserError(f"--data: none of these files can be read; the first: {bad[0]}")
    return found, names


def _own(run: Run, shape: tuple[int, ...]) -> tuple[list[Tensor], list[str]]:
    """Samples that the run held out, or learned from, as far as their files are still there; and the files' names."""
    from unveil.serve.samples import Sample, chosen, manifest_of, read

    for manifest in (manifest_of(run, validation=True), manifest_of(run)):
        if manifest is None or not len(manifest):
            continue
        samples = [
            sample
            for sample in read(run, manifest, chosen(run, manifest, 2 * SIGNALS))
            if isinstance(sample, Sample) and tuple(sample.x.shape) == shape
        ][:SIGNALS]
        if samples:
            return [sample.x for sample in samples], [Path(sample.row.path).name for sample in samples]
    return [], []


class Deviation(NamedTuple):
    """How far an export's answers are from the run's: the largest difference, and the largest answer."""

    difference: float
    largest: float

    def __str__(self) -> str:
        return f"{self.difference:.1e} (largest value {self.largest:.3g})"


def compare(ours: Tensor, theirs: Tensor, what: str) -> Deviation:
    """The deviation of `theirs`.

    Raises:
        UserError: it is more than `TOLERANCE`, or not a number; `what` is being exported.
    """
    if ours.shape != theirs.shape:
        raise UserError(
            f"{what} answers with {list(theirs.shape)}, the run with {list(ours.shape)}. Nothing was written."
        )
    found = Deviation((ours.double() - theirs.double()).abs().max().item(), ours.abs().max().item())
    if not found.difference <= TOLERANCE * found.largest:
        raise UserError(
            f"{what} does not answer as the run does: the largest difference is {found}, more than {TOLERANCE:g} of it. "
            "Nothing was written."
        )
    return found

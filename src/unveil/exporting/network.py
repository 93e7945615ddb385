"""What of a run is exported: one module from a normalised signal to one answer, with its names, shapes and a description."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from unveil.data.streams import stacked
from unveil.encoders import shown, streams_of
from unveil.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unveil.recipe import Data
    from unveil.run import Run

Part = Literal["whole", "encoder"]

#: Largest difference between a run's answers and its export's, in units of the largest answer.
TOLERANCE = 1e-4
SIGNALS = 3


class Logits(nn.Module):
    """Normalised signals [B, C, *S], one for each stream, in their order → logits [B, classes]."""

    def __init__(self, objective: nn.Module, streams: Sequence[str]):
        super().__init__()
        self.objective = objective
        self.streams = tuple(streams)

    def forward(self, *signals: Tensor) -> Tensor:
        return cast(Any, self.objective).logits(dict(zip(self.streams, signals, strict=True)))


class Features(nn.Module):
    """Normalised signals [B, C, *S], one for each stream, in their order → pooled features [B, D], as the encoder itself pools."""

    def __init__(self, encoder: nn.Module, key: str):
        super().__init__()
        self.encoder = encoder
        self.key = key
        self.streams = streams_of(encoder, key)

    def forward(self, *signals: Tensor) -> Tensor:
        given = shown(self.encoder, dict(zip(self.streams, signals, strict=True)), self.key)
        return cast(Any, self.encoder).pool(self.encoder(given))


class Shared(Features):
    """The same, in the space that the tower shares with others [B, D]."""

    def __init__(self, objective: nn.Module, key: str):
        super().__init__(cast(Any, objective).towers[key], key)
        self.projection = objective.get_submodule(f"projections.{key}")

    def forward(self, *signals: Tensor) -> Tensor:
        return self.projection(super().forward(*signals))


class Network(NamedTuple):
    """What is exported.

    Attributes:
        module: `Logits`, `Features` or `Shared`, in eval mode, on the CPU, in float32.
        input: name of what goes in: the key of the signal, or of the tower.
        output: "logits" or "features".
        shapes: of one sample, stream by stream in the order in which they go in {key: [C, *S]}.
        description: what one needs to know to use it, as plain values.
    """

    module: nn.Module
    input: str
    output: str
    shapes: dict[str, tuple[int, ...]]
    description: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the one stream there is [C, *S]."""
        (shape,) = self.shapes.values()
        return shape


def network_of(run: Run, part: Part, files: Sequence[Path] | None = None, use: str | None = None) -> Network:
    """The network of a run, and what it takes and gives.

    Args:
        run: opened on the CPU.
        part: "whole" is a classifier's logits, of a tower in a shared space the features there, and the features of whatever has
            no classes; "encoder" the features.
        files: of the kind that it shall take, where its signal is of several; None for what the run learned from.
        use: the tower, of a run of several streams; None for that of the whole signal.
    """
    recipe = run.recipe
    key, encoder, data = run.tower(use)
    classifies = part == "whole" and hasattr(recipe.objective, "logits")
    classes = run.trained_classes() if classifies else []
    shares = part == "whole" and key in getattr(recipe.objective, "projections", ())
    network = deepcopy(recipe.objective if classifies or shares else encoder).float().eval()
    if classifies:
        module: nn.Module = Logits(network, streams_of(encoder, key))
    else:
        module = Shared(network, key) if shares else Features(network, key)
    shapes = shapes_for(run, data, files)
    output = "logits" if classifies else "features"
    with torch.inference_mode():
        width = module(*(torch.zeros(1, *shape) for shape in shapes.values())).shape[1]
    training = {"training", *(name for name in data.described() if name.startswith("view "))}
    described = {name: value for name, value in data.described().items() if name not in training}
    inputs = [{"name": name, "shape": ["batch", *shape], "dtype": "float32"} for name, shape in shapes.items()]
    description = {
        "made_with": f"unveil {run.info['versions']['unveil']}",
        "recipe": run.info["recipe"],
        "flags": run.info["flags"],
        "input": inputs[0] if len(inputs) == 1 else inputs,
        "output": {"name": output, "shape": ["batch", width], "dtype": "float32"},
        "preprocessing": {**described, "values": data.signal.values},
        "classes": classes,
        "multi_label": bool(run.info.get("multi_label")) if classifies else False,
        "licence_of_start": run.info.get("licence_of_start"),
    }
    return Network(module.eval(), key, output, shapes, description)


def shapes_for(run: Run, data: Data, files: Sequence[Path] | None) -> dict[str, tuple[int, ...]]:
    """Of one sample, stream by stream {key: [C, *S]}; where a signal is of several kinds, of that which most of the files are.

    Args:
        run: with the recipe that reads them.
        data: of the tower.
        files: None for those that the run learned from.

    Raises:
        UserError: one of the `files` is not there.
    """
    from unveil.data import Manifest, Row, prepared
    from unveil.data.streams import shapes_of
    from unveil.data.visual import SeveralKinds, kinds_of
    from unveil.serve import windows
    from unveil.serve.samples import manifest_of

    blank = data.signal.blank()
    if isinstance(data.signal, SeveralKinds):
        manifest = manifest_of(run)
        if files is not None:
            found = windows.files(files, data.signal.suffixes)
            manifest = Manifest.of(Row(str(path)) for path in found if isinstance(path, Path))
        kinds = None if manifest is None else kinds_of(data.signal, manifest)
        if kinds is not None and len(kinds):
            blank = data.signal.blanks()[np.bincount(kinds).argmax()]
    return shapes_of(prepared(data, blank))


def signals(run: Run, files: Sequence[Path] | None, use: str | None = None) -> tuple[dict[str, Tensor], str]:
    """A few signals on which a run and its export are compared, float32 {key: [n, C, *S]}, and what they are, as a phrase.

    All are of the shapes that are exported. Each comes a second time, mirrored (of a cloud: its points the other way
    round; of a sound: backwards), so that there are always several.

    Args:
        run: with the recipe that reads them.
        files: what to read; None for files that the run held out or learned from, as far as they are still there.
        use: see `network_of`.

    Raises:
        UserError: one of the `files` is not there, or none can be read.
    """
    data = run.tower(use).data
    shapes = shapes_for(run, data, files)
    found, names = _own(run, data, shapes) if files is None else _read(data, files, shapes)
    if found:
        what = f"{len(found)} real signals ({', '.join(dict.fromkeys(names))}) and their mirror images"
    else:
        generator = torch.Generator().manual_seed(0)
        found = [
            {key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()} for _ in range(SIGNALS)
        ]
        what = "noise (the run's own files are not there; --data names others)"
    return {key: torch.cat([x, x.flip(-1)]) for key, x in stacked(found).items()}, what


def _read(
    data: Data, files: Sequence[Path], shapes: dict[str, tuple[int, ...]]
) -> tuple[list[dict[str, Tensor]], list[str]]:
    """The first windows of files, and the files' names."""
    from unveil.data.streams import shapes_of
    from unveil.serve.windows import BadFile, stream

    found: list[dict[str, Tensor]] = []
    names: list[str] = []
    bad: list[str] = []
    for item in stream(data, files, None, 1):
        if isinstance(item, BadFile):
            bad.append(item.error)
            continue
        sample = {key: x[0] for key, x in item.on(torch.device("cpu"), data).items()}
        if shapes_of(sample) != shapes:
            there, wanted = (
                ", ".join(str(list(shape)) for shape in one.values()) for one in (shapes_of(sample), shapes)
            )
            bad.append(f"{item.windows[0].path}: its signal is {there}, what is exported takes {wanted}.")
            continue
        found.append(sample)
        names.append(Path(item.windows[0].path).name)
        if len(found) == SIGNALS:
            break
    if not found:
        raise UserError(f"--data: none of these files can be read; the first: {bad[0]}")
    return found, names


def _own(run: Run, data: Data, shapes: dict[str, tuple[int, ...]]) -> tuple[list[dict[str, Tensor]], list[str]]:
    """Samples that the run held out, or learned from, as far as their files are still there; and the files' names."""
    from unveil.data.streams import shapes_of
    from unveil.serve.samples import Sample, chosen, manifest_of, read

    for manifest in (manifest_of(run, validation=True), manifest_of(run)):
        if manifest is None or not len(manifest):
            continue
        samples = [
            sample
            for sample in read(data, manifest, chosen(run, manifest, 2 * SIGNALS))
            if isinstance(sample, Sample) and shapes_of(sample.x) == shapes
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

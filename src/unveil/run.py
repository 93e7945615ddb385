"""The run folder: what is in it, how it is written and read.

run.json              verb, recipe, flags, versions, data, preprocessing, class names, licence of the start weights
weights.safetensors   the objective's state (the average of the weights where an EMA was asked for)
best.safetensors      the weights that scored best on what is held out
checkpoints/          what resumption needs: weights, optimiser, counters; the last two
log.jsonl             one object a step
manifest.parquet      what was trained on; validation.parquet: what was held out
tokenizer.json        how texts became ids, where there are any
bad.jsonl             files that could not be read, with the decoder's words
nan/                  a step whose loss or gradient was not finite, for `unveil doctor RUN`
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unveil.errors import UserError
from unveil.storage import read_lines

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from unveil.recipe import Data, Recipe

FORMAT = 1
WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}


def versions() -> dict[str, str]:
    """Versions of everything that shapes a result."""
    from importlib.metadata import version

    import av

    names = (
        "unveil",
        "torch",
        "torchvision",
        "av",
        "lightning-fabric",
        "numpy",
        "pyarrow",
        "safetensors",
        "scikit-learn",
    )
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found.update({name: version(name) for name in names})
    found["libavcodec"] = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return found


def choose_device(device: str) -> torch.device:
    """`auto` is the first of CUDA, MPS, CPU that is there.

    Raises:
        UserError: the device asked for is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, present in there.items() if present))
    kind = device.split(":")[0]
    if kind not in there:
        raise UserError(f"--device {device}: unknown. Use auto, cpu, cuda or mps.")
    if not there[kind]:
        raise UserError(
            f"--device {device}: this machine (or this build of torch {torch.__version__}) has none. "
            "Use --device auto, or see: unveil doctor"
        )
    return torch.device(device)


class Tower(NamedTuple):
    """One of a run's encoders.

    Attributes:
        key: its name: of its stream, or of the whole signal.
        encoder: a plain `nn.Module`.
        data: how files become what it takes.
    """

    key: str
    encoder: nn.Module
    data: Data


class Run:
    """A run folder, opened. `unveil.load(path)` makes one.

    Attributes:
        path: the folder.
        info: run.json.
        device: where its network is put.
    """

    def __init__(self, path: str | Path, device: str = "auto", weights: str = "last"):
        self.path = Path(path)
        if weights not in WEIGHTS:
            raise UserError(f"--weights {weights}: unknown. Use {' or '.join(WEIGHTS)}.")
        self.weights = weights
        file = self.path / "run.json"
        if not file.is_file():
            what = "has no run.json: it is not a run folder" if self.path.is_dir() else "does not exist"
            raise UserError(f"{self.path} {what}. A run folder is what --out of pretrain, train or finetune names.")
        try:
            self.info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} cannot be read as JSON: {error}") from error
        if not isinstance(self.info, dict) or self.info.get("format") != FORMAT:
            found = self.info.get("format") if isinstance(self.info, dict) else type(self.info).__name__
            raise UserError(f"{file} is of format {found}; this unveil reads format {FORMAT}.")
        self._device = device

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.info['recipe']}, {self.info['status']})"

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self._device)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits; empty for a run without labels."""
        return self.info["classes"]

    def trained_classes(self) -> list[str]:
        """Class names, of a run that has learned some.

        Raises:
            UserError: its classifier was not trained (an imported network whose head began anew).
        """
        if not self.classes:
            raise UserError(
                f"{self.path} has no trained classifier: fine-tune it first (unveil finetune {self.path} …)."
            )
        return self.classes

    @property
    def has_weights(self) -> bool:
        """Whether the file of weights is there and as long as it says; its numbers are not looked at."""
        from safetensors import safe_open

        try:
            with safe_open(self.path / WEIGHTS[self.weights], "pt"):
                return True
        except Exception:  # safetensors raises its own untyped errors for truncated and foreign files
            return False

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, rebuilt from its name and flags, with this run's weights."""
        from safetensors.torch import load_file

        from unveil.flags import build

        recipe = build(self.info["recipe"], **self.info["flags"])
        if recipe.data.text is not None:
            recipe.data.text.load(self.path, self.info.get("tokenizer", {}).get("sha256"))
        file = self.path / WEIGHTS[self.weights]
        if not file.is_file():
            why = "the run has not saved weights yet. Run its command again to go on."
            if self.weights == "best":
                why = "the run has measured no score on data held out. Use --weights last."
            raise UserError(f"{file} is missing: {why}")
        try:
            state: dict[str, torch.Tensor] = load_file(file)
        except Exception as error:  # safetensors raises its own untyped errors for truncated and foreign files
            raise UserError(
                f"{file} cannot be read ({error}). Run the training command again to write it anew."
            ) from error
        try:
            recipe.objective.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"{file} does not fit the recipe {self.info['recipe']} as it is now: {error}\nThe recipe was changed since "
                f"the run (made with unveil {self.info['versions']['unveil']})."
            ) from error
        recipe.objective.to(self.device).eval()
        return recipe

    @property
    def objective(self) -> nn.Module:
        """The objective in eval mode on `device`."""
        return self.recipe.objective

    @property
    def encoder(self) -> nn.Module:
        """The encoder alone, a plain `nn.Module`."""
        return self.tower().encoder

    def tower(self, use: str | None = None) -> Tower:
        """One of the encoders of a run of several streams; of any other run the one there is.

        Args:
            use: "video", "audio", "both", … ; None for that of the whole signal.

        Raises:
            UserError: the run has none of this name.
        """
        from unveil.data import narrowed, streams_in

        signal = self.recipe.data.signal
        towers: Mapping[str, nn.Module] = self.objective.towers  # type: ignore[assignment]
        there = [key for key in (*streams_in(signal), signal.key) if key in towers]
        key = signal.key if use is None else use
        if key not in there:
            raise UserError(f"--use {key}: {self.path} has {', '.join(dict.fromkeys(there))}.")
        return Tower(key, towers[key], narrowed(self.recipe.data, key))

    def log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl."""
        return read_lines(self.path / "log.jsonl")

    def bad_files(self) -> list[dict[str, Any]]:
        """Files that could not be read: `path`, `error`."""
        return read_lines(self.path / "bad.jsonl")

    def predict(
        self, *paths: str | Path, top: int = 5, hop: float | None = None, batch: int = 8, precision: str = "32"
    ) -> list[dict[str, Any]]:
        """Top-k classes for files and folders: one row per window of each file; computed in "32" or "bf16".

        Returns:
            Rows with `path`, `start`, `end` (seconds; None for images), `top` (list of (class, probability)), or `error`.
        """
        from unveil.serve import predict

        return list(predict(self, [Path(path) for path in paths], top=top, hop=hop, batch=batch, precision=precision))

    def embed(
        self,
        paths: Sequence[str | Path],
        layer: int | None = None,
        pool: str | None = None,
        use: str | None = None,
        precision: str = "32",
    ) -> np.ndarray:
        """Embeddings float32 [n, D], one per window of each file, in order; `use`: see `tower`; computed in "32" or "bf16"."""
        from unveil.serve import embeddings

        return embeddings(self, [Path(path) for path in paths], layer=layer, pool=pool, use=use, precision=precision)


def load(path: str | Path, device: str = "auto", weights: str = "last") -> Run:
    """Open a run folder.

    Args:
        path: the folder.
        device: auto, cpu, cuda or mps.
        weights: "last", or "best" of those that were scored on held-out data on the way.

    Raises:
        UserError: it is not one.
    """
    return Run(path, device, weights)


def new_info(verb: str, recipe: str, flags: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What run.json holds when a run begins."""
    return {
        "format": FORMAT,
        "verb": verb,
        "recipe": recipe,
        "flags": dict(flags),
        "status": "running",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv[1:] if Path(sys.argv[0]).stem == "unveil" else None,
        "versions": versions(),
        **more,
    }


#: Settings that do not change what is learned: another value resumes the run.
FREE = ("device", "devices", "strategy", "checkpoint_every", "keep", "logger", "max_bad", "loader.")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings in which two runs differ, as sentences."""

    def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**{k: v for k, v in settings.items() if k != "flags"}, **settings.get("flags", {})}
        return {k: v for k, v in json.loads(json.dumps(merged)).items() if not k.startswith(FREE)}

    before, after = flat(old), flat(new)
    return [
        f"--{name.replace('_', '-')}: was {before.get(name, 'not given')}, is {after.get(name, 'not given')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]

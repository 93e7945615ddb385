"""Weights from files that anybody may have made: nothing in them is run, and none takes more memory than it is long.

`.safetensors` holds tensors and text, nothing else. A `.pth` is a pickle, which can name any function and have it called; it is
read by PyTorch's restricted unpickler (`weights_only=True`), which knows tensors, numbers and containers. Added to these is only
what the checkpoints of published systems carry beside their tensors and what is mere data: `argparse.Namespace` (MAE,
VideoMAE and most of their descendants keep their arguments so), paths, and NumPy's scalars. Everything else is refused by name.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unveil import torchscript
from unveil.errors import UserError

#: Keys under which training scripts save a state dict beside other things.
NESTED = ("model", "state_dict", "objective", "module", "model_state")


class _Dtype:
    """What a pickle says of a NumPy type, without NumPy: its own reconstruction takes arbitrary objects."""

    def __init__(self, code: str, *_: Any):
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float | bool | complex:
    """A NumPy scalar as a plain number.

    Raises:
        pickle.UnpicklingError: not a number.
    """
    import numpy as np

    order = getattr(dtype, "order", "=")
    if not isinstance(dtype, _Dtype) or not re.fullmatch(r"[<>=|][biufc]\d{1,2}", f"{order}{dtype.code}"):
        raise pickle.UnpicklingError("a NumPy scalar that is no number")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, np.dtype(f"{order}{dtype.code}"), 1)[0].item()


#: How the restricted unpickler says what it has refused.
REFUSED = re.compile(r"(?:GLOBAL|unrecognized function) (\S*\w)(?=\s)")

_PATHLIB = ("pathlib", "pathlib._local")

#: Names in a pickle → what stands for them here.
HARMLESS: list[Any] = [
    argparse.Namespace,
    # As pure paths, which touch no disk and exist for every system. (Python 3.13 had them in a module of their own.)
    *((pathlib.PurePosixPath, f"{module}.{kind}") for module in _PATHLIB for kind in ("PosixPath", "PurePosixPath")),
    *(
        (pathlib.PureWindowsPath, f"{module}.{kind}")
        for module in _PATHLIB
        for kind in ("WindowsPath", "PureWindowsPath")
    ),
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a checkpoint (`.pt`, `.pth`, …) by their names.

    Of a checkpoint with more in it, the state dict under one of the keys `NESTED`. A TorchScript archive is read for the tensors of
    its modules: see `torchscript`.

    Raises:
        UserError: no such file, not weights, truncated, or with anything in it that is not data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (
            Exception
        ) as error:  # safetensors raises its own untyped errors; its header is checked against the file's length
            raise UserError(f"{path}: cannot be read as weights: {error}") from error
    if torchscript.is_archive(path):
        return torchscript.read_archive(path)
    state = load_data(path)
    while isinstance(state, Mapping) and not (state and all(isinstance(value, Tensor) for value in state.values())):
        inner = next((state[key] for key in NESTED if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            found = ", ".join(map(str, list(state)[:6])) or "nothing"
            raise UserError(f"{path}: holds no state dict (found: {found}).")
        state = inner
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: holds no state dict (found: {type(state).__name__}).")
    size = path.stat().st_size
    for name, value in state.items():
        # A view can repeat a few values over any shape; its first copy would be as large as it claims.
        if value.layout != torch.strided or value.device.type != "cpu" or value.numel() * value.element_size() > size:
            raise UserError(f"{path}: {name} claims the shape {list(value.shape)}, more than the whole file holds.")
    return {str(name): value for name, value in state.items()}


def load_data(path: str | Path) -> Any:
    """What `torch.save` wrote, as long as it is data: tensors, numbers, text, containers and `HARMLESS`.

    Raises:
        UserError: it cannot be read, or names anything else; the text says what.
    """
    path = Path(path)
    try:
        _check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(HARMLESS):
            warnings.simplefilter("ignore")  # what PyTorch has to say of old formats, and of files that are none
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # readers of foreign bytes raise every kind
        # PyTorch's own text goes on to recommend weights_only=False, which would run the file.
        text = str(error)
        if isinstance(error, pickle.UnpicklingError) and (named := REFUSED.search(text)):
            raise UserError(
                f"{path}: refused, since it is more than weights: it names {named[1]}, which reading it could run. Ask whoever "
                "made it for safetensors, or for a file with nothing but the state dict."
            ) from error
        inner = re.search(r"WeightsUnpickler error: (.+)", text)
        reason = (inner[1] if inner else text.strip().partition("\n")[0]).split(". ")[0]
        reason = ": ".join(part for part in (type(error).__name__, reason) if part)
        raise UserError(
            f"{path}: cannot be read as weights: it is cut off, damaged, or no file of PyTorch's ({reason})."
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is: `torch.save` only stores, it never compresses."""
    if not zipfile.is_zipfile(path):
        return  # the format of before 2020, or no checkpoint
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path}: refused, its records are compressed, which no checkpoint of PyTorch's is.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UserError(f"{path}: refused, its records claim to be longer than the file.")

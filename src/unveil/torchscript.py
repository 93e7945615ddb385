"""Weights of TorchScript archives (OpenAI's CLIP), read as data: the program in them is never looked at.

Beside its code an archive holds a pickle of its modules' attributes, and the numbers of its tensors, one member each. That pickle
is read by an unpickler that knows modules (as mere mappings), tensors, lists and nothing else; whatever else it names is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from unveil.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
MOST_MODULES = 100_000


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that holds constants beside its data."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    return {"constants.pkl", "data.pkl"} <= names


def read_archive(path: Path) -> dict[str, Tensor]:
    """The tensors of an archive's modules by their names, `visual.conv1.weight`; no code in it is run.

    Raises:
        UserError: it is damaged, or holds what is no data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            records = _Records(archive, root, path.stat().st_size)
            if records.has("byteorder") and records.read("byteorder") != b"little":
                raise pickle.UnpicklingError("its numbers are of the other byte order")
            top = _Unpickler(records).load()
            return dict(_tensors(top))
    except Exception as error:  # readers of foreign bytes raise every kind
        raise UserError(
            f"{path}: this TorchScript archive cannot be read safely ({error}). Give its state dict instead, as .safetensors or as "
            "a .pt with nothing but the tensors."
        ) from error


class _Records:
    """Members of the archive that are stored as they are, none longer than the file."""

    def __init__(self, archive: zipfile.ZipFile, root: str, size: int):
        self._archive, self._root, self._left = archive, root, size

    def has(self, name: str) -> bool:
        return self._root + name in self._archive.NameToInfo

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError(f"{name} is compressed, which no tensor of PyTorch's is")
        self._left -= info.file_size  # overlapping members would be read again and again
        if self._left < 0:
            raise pickle.UnpicklingError("its records claim to be longer than the file")
        return self._archive.read(info)


class _Module:
    """A module: its attributes, by name."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise pickle.UnpicklingError("a module without names")
        self.attributes = state


class _Call:
    """A function that a pickle may call; its own attributes cannot be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("it changes a function")


class _Unpickler(pickle.Unpickler):
    def __init__(self, records: _Records):
        super().__init__(io.BytesIO(records.read("data.pkl")))
        self._records = records
        self._storages: dict[str, Tensor] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
            ("collections", "OrderedDict"): _Call(lambda *_: {}),
            **{("torch", name): dtype for name, dtype in DTYPES.items()},
            **{("torch.jit._pickle", name): _Call(list) for name in LISTS},
        }

    def find_class(self, module_name: str, global_name: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if module_name.split(".")[0] == "__torch__":
            return _Module
        if (module_name, global_name) not in self._known:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which reading it could run")
        return self._known[module_name, global_name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a reference to something that is no tensor")
        if key not in self._storages:
            content = self._records.read(f"data/{key}")
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(bytearray(content), dtype=dtype) if content else empty
        if self._storages[key].dtype != dtype:
            raise pickle.UnpicklingError("one tensor's numbers of two kinds")
        return self._storages[key]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, none of it outside, and none of it repeated."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or storage.ndim != 1 or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor of no shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= len(storage) or math.prod(size) > len(storage)):
        raise pickle.UnpicklingError("a tensor that claims more than its numbers")
    return storage.as_strided(size, stride, offset)


def _tensors(top: Any) -> Iterator[tuple[str, Tensor]]:
    waiting, count = [("", top)], 0
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, _Module) or (count := count + 1) > MOST_MODULES:
            raise pickle.UnpicklingError("no module, or more of them than any network has")
        for name, value in module.attributes.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))

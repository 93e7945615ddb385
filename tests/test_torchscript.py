"""TorchScript archives: the tensors of the modules in them, and nothing that could be run."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unveil import torchscript
from unveil.errors import UserError
from unveil.state_dict import read_state_dict


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.sizes = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.short = nn.Parameter(torch.arange(4.0).half())
        self.inner = nn.Sequential(Inner(), nn.ReLU())
        self.register_buffer("turned", torch.arange(6).reshape(2, 3).t())
        self.register_buffer("none", torch.empty(0))
        self.input_resolution = 224

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "outer.pt"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Outer()), path)
    return path


def test_the_tensors_are_those_of_the_program(archive: Path) -> None:
    torch.manual_seed(0)
    expected = Outer().state_dict()
    found = read_state_dict(archive)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def rewritten(archive: Path, out: Path, change: dict[str, bytes | None], compress: str = "") -> Path:
    """The archive with other members; None leaves one out."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            inside = name.partition("/")[2]
            content = change.get(inside, old.read(name))
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if inside == compress else zipfile.ZIP_STORED
                new.writestr(zipfile.ZipInfo(name), content, kind)
    return out


def spoken(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        return opened.read("outer/data.pkl")


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.mark}'",)


def call(function: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02c" + function + arguments + b"R."


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("names", call(b"posix\nsystem\n", b"(X\x04\x00\x00\x00truet"), "names posix.system"),
        ("builtins", call(b"builtins\neval\n", b"(X\x01\x00\x00\x001t"), "names builtins.eval"),
        ("torch", call(b"torch\nload\n", b"(X\x01\x00\x00\x001t"), "names torch.load"),
        # State for the function that rebuilds tensors.
        ("functions", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", "changes a function"),
        ("no module", b"\x80\x02K\x01.", "no module"),
        ("nameless", b"\x80\x02c__torch__\nM\n)\x81}K\x01K\x02sb.", "without names"),
        ("cut", b"\x80\x02c__torch__\nM\n", "cannot be read safely"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_what_is_more_than_data_is_refused(archive: Path, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = rewritten(archive, tmp_path / "x.pt", {"data.pkl": content})
    with pytest.raises(UserError, match=rf"x\.pt: .*{said}"):
        read_state_dict(path)


def test_nothing_is_run(archive: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    path = rewritten(archive, tmp_path / "x.pt", {"data.pkl": pickle.dumps(Evil(mark), protocol=2)})
    with pytest.raises(UserError, match="which reading it could run"):
        read_state_dict(path)
    assert not mark.exists()
    # The program itself may be any: it is not looked at.
    assert read_state_dict(rewritten(archive, tmp_path / "y.pt", {"code/__torch__.py": b"import os; os._exit(1)"}))


def test_tensors_that_are_not_all_there(archive: Path, tmp_path: Path) -> None:
    for change, said in (
        ({"data/1": b"\0" * 3}, ""),
        ({"data/2": None}, ""),
        ({"data/0": b""}, "claims more"),
        ({"byteorder": b"big"}, "byte order"),
    ):
        with pytest.raises(UserError, match=f"cannot be read safely.*{said}"):
            read_state_dict(rewritten(archive, tmp_path / "x.pt", change))
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(rewritten(archive, tmp_path / "x.pt", {}, compress="data/1"))


def test_a_view_repeats_nothing(archive: Path, tmp_path: Path) -> None:
    """A tensor of 3 × 2 numbers in a storage of 6 may not be one of 300 × 2."""
    content = spoken(archive).replace(b"K\x03K\x02", b"M\x2c\x01K\x02", 1)
    with pytest.raises(UserError, match="claims more"):
        read_state_dict(rewritten(archive, tmp_path / "x.pt", {"data.pkl": content}))


def test_other_files_are_none(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    assert not torchscript.is_archive(tmp_path / "plain.pt")
    assert not torchscript.is_archive(Path(__file__))

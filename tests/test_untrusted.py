"""Files that anybody may have made: nothing in them is run, none takes more memory than it is long, and each refusal says why."""

import argparse
import json
import os
import pathlib
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import unveil
from unveil import cli, weights
from unveil.data import Manifest
from unveil.errors import UserError
from unveil.state_dict import load_data, read_state_dict
from unveil.training.replay import replay

MAE = {"size": "debug", "crop": 32, "patch": 8}
FAST = {**MAE, "schedule.batch": 4, "loader.batch": 4, "loader.workers": 0, "device": "cpu", "quiet": True}


class Evil:
    """Unpickled without care it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.fixture
def mark(tmp_path):
    """A file that is there after the test only if something was run."""
    path = tmp_path / "was-run"
    yield path
    assert not path.exists(), "code in a file was run"


def malicious(path: Path, mark: Path, kind: str) -> Path:
    state = unveil.build("mae", **MAE).objective.state_dict()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    elif kind == "pickle of now":
        path.write_bytes(pickle.dumps(Evil(mark)))
    else:
        torch.save({"model": state, "x": Evil(mark)}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


KINDS = ("zip", "before 2020", "pickle", "pickle of now")


def test_the_malicious_files_are_malicious(tmp_path):
    for i, kind in enumerate(KINDS):
        mark = tmp_path / f"mark{i}"
        path = malicious(tmp_path / f"{i}.pth", mark, kind)
        if "pickle" in kind:
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_start_and_published_weights(tmp_path, mark, images, kind):
    path = malicious(tmp_path / "w.pth", mark, kind)
    with pytest.raises(UserError, match=r"w\.pth: (refused|cannot be read)") as error:
        cli.run(["pretrain", "mae", "--data", str(images), "--out", str(tmp_path / "o"), "--start", str(path), *TINY])
    assert "weights_only" not in str(error.value), "PyTorch's advice to run the file is handed on"
    with pytest.raises(UserError, match=r"w\.pth: (refused|cannot be read)"):
        weights.load("mae", path)
    if kind != "pickle of now":
        with pytest.raises(UserError, match=r"it names (posix|nt)\.system"):
            load_data(path)
    # The suffix is not to be believed.
    lying = path.rename(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="cannot be read as weights"):
        weights.load("mae", lying)


TINY = ["--size", "debug", "--crop", "32", "--patch", "8", "--device", "cpu", "--loader.workers", "0"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i in range(4):
        Image.effect_noise((40, 40), 30 + i).convert("RGB").save(folder / f"{i}.png")
    return folder


def test_a_checkpoint_with_code_is_not_resumed_from(tmp_path, mark, images):
    unveil.pretrain("mae", data=images, out=tmp_path / "run", max_steps=2, **FAST)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(info | {"status": "running"}))
    last = tmp_path / "run" / "checkpoints" / "step-000000002.pt"
    state = torch.load(last, weights_only=True)
    torch.save(state | {"step": 1}, last.with_name("step-000000001.pt"))
    malicious(last, mark, "zip")
    run = unveil.pretrain("mae", data=images, out=tmp_path / "run", max_steps=2, **FAST)
    assert run.info["status"] == "complete"


def test_a_run_folder_from_a_stranger(tmp_path, mark, images):
    run = unveil.pretrain("mae", data=images, out=tmp_path / "run", max_steps=1, **FAST)
    weights_file, manifest = run.path / "weights.safetensors", run.path / "manifest.parquet"

    whole = weights_file.read_bytes()
    malicious(weights_file, mark, "zip")
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        unveil.load(run.path, "cpu").embed([images / "0.png"])
    weights_file.write_bytes(whole)

    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Evil(mark)),
    }
    table = pq.read_table(manifest)
    evil = pa.schema([table.schema.field(0).with_metadata(extension), *list(table.schema)[1:]])
    pq.write_table(table.cast(evil), manifest)
    assert len(Manifest.load(manifest)) == 4

    (run.path / "nan").mkdir()
    (run.path / "nan" / "rank-0.json").write_text('{"format": 1, "step": 1, "world": 1, "micro_batches": []}')
    for name in ("state", "rank-0"):
        malicious(run.path / "nan" / f"{name}.safetensors", mark, "zip")
    with pytest.raises(UserError, match="cannot be read"):
        replay(unveil.load(run.path, "cpu"))

    # A name in run.json is looked up and called with the flags that stand beside it.
    for name, flags in (
        ("os:system", {"command": f"touch {mark}"}),
        ("subprocess:run", {"args": ["touch", str(mark)]}),
    ):
        (run.path / "run.json").write_text(json.dumps(run.info | {"recipe": name, "flags": flags}))
        with pytest.raises(UserError, match="is no recipe"):
            unveil.load(run.path, "cpu").embed([images / "0.png"])
        with pytest.raises(UserError, match="is no recipe"):
            unveil.finetune(run.path, data=images, out=tmp_path / "o")


def test_a_config_file_holds_values_only(tmp_path, mark):
    for text in ("size: !!python/object/apply:os.system ['{}']", "!!python/object/apply:os.system ['{}']"):
        (tmp_path / "c.yaml").write_text(text.format(f"touch {mark}"))
        with pytest.raises(UserError, match="python/object"):
            cli.run(["pretrain", "mae", "--config", str(tmp_path / "c.yaml"), "--data", "d", "--out", "o"])


# ---- what is taken


def test_what_official_checkpoints_carry_beside_tensors_is_read(tmp_path):
    state = unveil.build("mae", **MAE).objective.state_dict()
    beside = {
        "args": argparse.Namespace(lr=1e-3, output_dir=pathlib.Path("a") / "b", betas=(0.9, 0.95)),
        "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict(),
        "scaler": {"scale": 65536.0},
        "epoch": 799,
        "best": np.float64(0.75),
        "count": np.int64(-3),
        "single": np.float32(0.5),
        "good": np.bool_(True),
    }
    for zipped in (True, False):
        torch.save({"model": state, **beside}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        read = load_data(tmp_path / "a.pth")
        assert (read["args"].lr, read["epoch"]) == (1e-3, 799)
        assert str(read["args"].output_dir) in ("a/b", "a\\b")
        assert [read[key] for key in ("best", "count", "single", "good")] == [0.75, -3, 0.5, True]
        found = read_state_dict(tmp_path / "a.pth")
        assert list(found) == list(state)
        assert all(torch.equal(found[name], value) for name, value in state.items())
    for key in ("state_dict", "module", "model_state"):
        torch.save({key: state}, tmp_path / "b.pth")
        assert list(read_state_dict(tmp_path / "b.pth")) == list(state)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (np.array([object()], dtype=object), "_reconstruct"),
        (slice(1, 2), "slice"),
    ],
)
def test_other_types_are_refused_by_name(tmp_path, value, named):
    torch.save({"model": {"a": torch.zeros(2)}, "x": value}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"refused, since it is more than weights: it names .*{named}"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [{}, [], 3, {"model": {}}, {"epoch": 3}, torch.zeros(2)])
def test_without_a_state_dict(tmp_path, value):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "a.pth")


# ---- files that claim to be larger than they are


def rewritten(source: Path, target: Path, replace: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, replace.get(entry.filename.partition("/")[2], old.read(entry)))
    return target


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    torch.save({"w": torch.zeros(2**22)}, tmp_path / "a.pth")
    bomb = rewritten(tmp_path / "a.pth", tmp_path / "bomb.pth", {}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**17
    with pytest.raises(UserError, match="its records are compressed"):
        read_state_dict(bomb)

    # Many names for the same bytes: every entry of the directory claims the same length.
    torch.save({"w": torch.zeros(256)}, tmp_path / "b.pth")
    raw = bytearray((tmp_path / "b.pth").read_bytes())
    places = [i for i in range(len(raw) - 4) if raw[i : i + 4] == b"PK\x01\x02"]
    assert len(places) > 3
    for place in places:
        raw[place + 20 : place + 28] = struct.pack("<II", 1500, 1500)
    (tmp_path / "b.pth").write_bytes(raw)
    with pytest.raises(UserError, match="claim to be longer than the file"):
        read_state_dict(tmp_path / "b.pth")


def test_tensors_that_claim_more_than_the_file_holds(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**9, 1000)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"w claims the shape \[1000000000, 1000\]"):
        read_state_dict(tmp_path / "a.pth")
    torch.save({"w": torch.zeros(10**12, device="meta")}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="w claims the shape"):
        read_state_dict(tmp_path / "b.pth")
    # The number of a storage's elements, in the pickle: 4 → 40 million, of which the record holds 4.
    for zipped in (True, False):
        torch.save({"w": torch.zeros(4)}, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
        more = b"J" + struct.pack("<i", 40_000_000)
        if zipped:
            with zipfile.ZipFile(tmp_path / "c.pth") as archive:
                data = archive.read("c/data.pkl").replace(b"K\x04", more)
            lying = rewritten(tmp_path / "c.pth", tmp_path / "d.pth", {"data.pkl": data})
        else:
            lying = tmp_path / "d.pth"
            lying.write_bytes((tmp_path / "c.pth").read_bytes().replace(b"K\x04", more))
        # PyTorch 2.6 makes a tensor beyond the end of its storage, and we refuse it; later ones refuse it themselves.
        with pytest.raises(UserError, match=r"cannot be read as weights|w claims the shape"):
            read_state_dict(lying)


def test_safetensors_with_lying_headers(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(4)}, path)
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])

    def written(header: dict, body: bytes = raw[8 + length :]) -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    entry = header["w"]
    for lying in (
        struct.pack("<Q", 2**63) + raw[8:],
        struct.pack("<Q", 10**8) + raw[8:],
        written({"w": {**entry, "shape": [10**12]}}),
        written({"w": {**entry, "data_offsets": [0, 10**12], "shape": [10**12 // 4]}}),
        written({"w": {**entry, "data_offsets": [-4, 12]}}),
        written({"w": entry, "v": entry}),
        raw[:-3],
        raw[:20],
        b"",
        b"\x00" * 100,
    ):
        path.write_bytes(lying)
        with pytest.raises(UserError, match="cannot be read as weights"):
            read_state_dict(path)


def test_truncated_anywhere(tmp_path):
    for zipped in (True, False):
        torch.save({"model": {"w": torch.zeros(300)}}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        raw = (tmp_path / "a.pth").read_bytes()
        for cut in [*range(0, len(raw), max(1, len(raw) // 40)), len(raw) - 1]:
            (tmp_path / "b.pth").write_bytes(raw[:cut])
            with pytest.raises(UserError, match=r"b\.pth: "):
                read_state_dict(tmp_path / "b.pth")

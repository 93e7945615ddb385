"""No room, and no right to write: an error that names the file, the old files whole, and the same command goes on later."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from kills import Forked, Result, command, leftovers, uninterrupted, write_clips
from safetensors.torch import load_file

from unveil.errors import UserError
from unveil.storage import write_json
from unveil.training import checkpoint
from unveil.training.guards import writing

# Coverage writes files of its own in these processes, which have no room or right either.
pytestmark = pytest.mark.skipif(
    "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None, reason="coverage is measured"
)

STEPS = 30
RARELY = 1000.0  # seconds between checkpoints: only the last step's


@pytest.fixture(scope="module")
def base():
    # Not below pytest's own folders, which are closed to all but their owner.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture(scope="module")
def clips(base):
    return write_clips(base / "clips")


@pytest.fixture(scope="module")
def whole(base, clips):
    """A finished run."""
    return uninterrupted(clips, base / "whole", 0, STEPS)[0]


def carried_out(clips: Path, out: Path, every: float = RARELY, steps: int = STEPS, **limits) -> tuple[int | None, str]:
    output = out.with_suffix(".txt")
    begin = output.stat().st_size if output.exists() else 0
    status = Forked(command(clips, out, 0, steps, every), output, **limits).wait(60)
    return status, output.read_bytes()[begin:].decode()


def check_error(said: str, file: Path | str, *words: str) -> None:
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("unveil: "), said
    for word in (str(file), *words):
        assert word in last, last


@pytest.mark.parametrize(
    ("name", "room"),
    [("manifest.parquet", 200), ("run.json", 1800), ("log.jsonl", 4000), ("step-000000030.pt", 300_000)],
)
def test_a_full_disk(base, clips, whole, name, room):
    out = base / f"full-{room}"
    status, said = carried_out(clips, out, largest=room)
    assert status == 2
    check_error(said, name, "File too large", "Free some space")
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    status, said = carried_out(clips, out)
    assert status == 0, said
    assert whole.differences(Result.of(out)) == []
    assert leftovers(out) == []


def test_no_room_for_a_bad_file(base, clips, whole):
    out = base / "no-bad"
    out.mkdir()
    (out / "bad.jsonl").symlink_to("/dev/full")
    status, said = carried_out(clips, out)
    assert status == 2
    check_error(said, out / "bad.jsonl", "No space left on device", "Free some space")
    (out / "bad.jsonl").unlink()
    status, said = carried_out(clips, out)
    assert status == 0, said
    assert whole.differences(Result.of(out)) == []


@contextmanager
def room(size):
    """Inside, this process writes no file beyond `size` bytes: not for longer, since its own output may be a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_weights(tmp_path):
    """Written in Rust, whose errors are no OSError."""
    path = tmp_path / "weights.safetensors"
    checkpoint.save_weights(path, {"a": torch.ones(1000)})
    with (
        pytest.raises(UserError, match=r"weights\.safetensors could not be written: File too large"),
        writing(tmp_path),
        room(2000),
    ):
        checkpoint.save_weights(path, {"a": torch.zeros(1000)})
    assert load_file(path)["a"].all()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_no_room_for_results(tmp_path):
    """What the other verbs write goes the same way: the old file stays, the error names it."""
    write_json(tmp_path / "index.json", {"old": 1})
    with pytest.raises(OSError, match=r"File too large: .*index\.json"), room(100):
        write_json(tmp_path / "index.json", {"new": "x" * 1000})
    assert json.loads((tmp_path / "index.json").read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


def test_no_room_for_what_the_other_verbs_write(base, clips, whole):
    if hasattr(sys.modules.get("torch.distributed.nn.jit.instantiator"), "_write"):  # 2.6 does
        pytest.skip("this PyTorch writes a file whenever it is imported, for which there is no room either")
    output = base / "others.txt"
    embed = ["embed", str(base / "whole"), "--data", str(clips), "--out", str(base / "index")]
    for number, (argv, name) in enumerate(
        [
            (["data", "check", str(clips), "--out", str(base / "m.parquet")], "m.parquet"),
            ([*embed, "--workers", "0"], "index"),
            # Memory that processes share is a file for the kernel, too: no room for it, either, and nobody waits for ever.
            ([*embed, "--workers", "1"], "memory that processes share"),
            (["report", str(base / "whole"), "--out", str(base / "page.html")], "page.html"),
        ]
    ):
        before = output.stat().st_size if output.exists() else 0
        assert Forked(argv, output, largest=before + 1500).wait(60) == 2, output.read_text()
        check_error(output.read_bytes()[before:].decode(), name, "File too large")
        assert not (base / name).exists() or number == 0


def test_without_the_right_to_write(base, clips, whole):
    clips.chmod(0o555)  # the data need not be written to
    status, said = carried_out(clips, base / "open", without_rights=True)
    assert status == 0, said
    assert whole.differences(Result.of(base / "open")) == []
    closed = base / "closed"
    closed.mkdir()
    (closed / "run.txt").touch()
    (closed / "run.txt").chmod(0o666)
    closed.chmod(0o555)
    status, said = carried_out(clips, closed / "run", without_rights=True)
    assert status == 2
    check_error(said, closed / "run", "Permission denied", "--out")
    # A run that another user began.
    status, said = carried_out(clips, base / "mine", steps=STEPS)
    assert status == 0
    (base / "mine.txt").chmod(0o666)
    info = json.loads((base / "mine" / "run.json").read_text())
    (base / "mine" / "run.json").write_text(json.dumps({**info, "status": "running"}))
    status, said = carried_out(clips, base / "mine", steps=STEPS, without_rights=True)
    assert status == 2
    check_error(said, base / "mine", "ermi", "--out")

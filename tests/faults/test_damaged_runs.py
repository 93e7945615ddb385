"""Run folders whose files were cut short, exchanged or removed, and data that change while a run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from kills import Result, write_clips
from media import numbered_frames, write_video

import unveil
from unveil import verbs
from unveil.errors import UserError
from unveil.training import loop

STEPS = 8
FLAGS = {
    "size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 2, "device": "cpu", "max_steps": STEPS, "max_bad": 0.5,
    "schedule.batch": 4, "loader.batch": 2, "loader.workers": 0, "checkpoint_every": 0, "seed": 5,
}  # fmt: skip


def train(clips: Path, out: Path, **flags) -> unveil.run.Run:
    return unveil.pretrain("videomae", data=clips, out=out, **{**FLAGS, **flags})


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="module")
def expected(clips, tmp_path_factory):
    return Result.of(train(clips, tmp_path_factory.mktemp("whole") / "run", quiet=True).path)


@pytest.fixture(scope="module")
def cut(clips, tmp_path_factory):
    """A run that was cut off after step 5, with checkpoints of steps 4 and 5."""
    out = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch:
        write = loop.Log.step

        def die(log, numbers):
            write(log, numbers)
            if numbers["step"] == 6:
                raise KeyboardInterrupt

        patch.setattr(loop.Log, "step", die)
        with pytest.raises(KeyboardInterrupt):
            train(clips, out, quiet=True)
    return out


@pytest.fixture
def run(cut, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(cut, tmp_path / "run"))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def last_bytes_missing(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no such thing")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_tensors(path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(3)}}, path)


DAMAGE = [truncated, last_bytes_missing, emptied, text, directory]


@pytest.mark.parametrize("damage", [truncated, last_bytes_missing, emptied, text, other_tensors])
def test_the_checkpoint_before_a_damaged_one_is_used(run, clips, expected, damage, capfd):
    damage(run / "checkpoints" / "step-000000005.pt")
    assert expected.differences(Result.of(train(clips, run).path)) == []
    said = capfd.readouterr().err
    assert "step-000000005.pt cannot be used" in said
    assert "resumed after step 4" in said


def test_without_a_good_checkpoint_it_begins_again(run, clips, expected, capfd):
    for path in (run / "checkpoints").iterdir():
        truncated(path)
    assert expected.differences(Result.of(train(clips, run).path)) == []
    assert "begins again" in capfd.readouterr().err


def test_a_folder_in_a_checkpoint_s_place(run, clips, expected, capfd):
    directory(run / "checkpoints" / "step-000000005.pt")
    with pytest.raises(UserError, match=r"step-000000005\.pt could not be written: Is a directory"):
        train(clips, run)
    assert "resumed after step 4" in capfd.readouterr().err
    (run / "checkpoints" / "step-000000005.pt").rmdir()
    assert expected.differences(Result.of(train(clips, run).path)) == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["run.json", "manifest.parquet"])
def test_what_a_run_cannot_do_without_is_named(run, clips, name, damage):
    damage(run / name)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        train(clips, run, quiet=True)


@pytest.mark.parametrize("name", ["log.jsonl", "bad.jsonl"])
def test_half_a_line(run, clips, expected, name):
    lines = (run / name).read_bytes()
    (run / name).write_bytes(lines[: -len(lines.splitlines()[-1]) // 2])
    assert expected.differences(Result.of(train(clips, run, quiet=True).path)) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights(run, clips, tmp_path, damage):
    damage(run / "weights.safetensors")
    for use in (
        lambda: verbs.embed(run, data=clips / "00.mp4", out=tmp_path / "index", quiet=True),
        lambda: verbs.evaluate(run, data=clips, by="knn", quiet=True),
        lambda: train(clips, tmp_path / "other", start=run, quiet=True),
        lambda: train(clips, tmp_path / "another", start=run / "weights.safetensors", quiet=True),
    ):
        with pytest.raises(UserError, match=r"weights\.safetensors|no weights"):
            use()
    # A report is of what there is, and says what is not.
    assert (
        "weights.safetensors cannot be read" in verbs.report(run, quiet=True).read_text(encoding="utf-8")
        or not (run / "weights.safetensors").is_file()
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_command_of_a_complete_run_makes_damaged_weights_again(cut, clips, expected, tmp_path, damage):
    run = Path(shutil.copytree(cut, tmp_path / "run"))
    train(clips, run, quiet=True)
    damage(run / "weights.safetensors")
    if damage is directory:
        (run / "weights.safetensors").rmdir()
    assert expected.differences(Result.of(train(clips, run, quiet=True).path)) == []


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', '{"format": 99}'])
def test_a_foreign_run_json(run, clips, content):
    (run / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json is of format"):
        train(clips, run, quiet=True)


def test_files_that_vanish_or_turn_into_rubbish_on_the_way(tmp_path, monkeypatch):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(8):
        write_video(clips / f"{number}.mp4", numbered_frames(12, seed=number))
    write = loop.Log.step

    def damage(log, numbers):
        write(log, numbers)
        if numbers["step"] == 2:
            (clips / "1.mp4").unlink()
            (clips / "2.mp4").write_text("rubbish")
            (clips / "3.mp4").unlink()
            os.mkfifo(clips / "3.mp4")

    monkeypatch.setattr(loop.Log, "step", damage)
    run = train(clips, tmp_path / "run", quiet=True, max_steps=12)
    assert {Path(entry["path"]).name for entry in run.bad_files()} == {"1.mp4", "2.mp4", "3.mp4"}
    assert run.log()[-1]["bad"] == 3


def test_asked_twice_it_stops_at_once(clips, tmp_path, monkeypatch):
    write = loop.Log.step

    def ask_twice(log, numbers):
        write(log, numbers)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.1)  # one Ctrl-C may arrive twice within a second
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(loop.Log, "step", ask_twice)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(clips, tmp_path / "run", quiet=True)
    assert time.monotonic() - began < 8

"""Clips with their sound through the verbs: both systems, both stages, one stream or two, clips without sound, search by a sound."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import unveil
from unveil.begin import settled
from unveil.errors import UserError
from unveil.recipes import mavil
from unveil.run import load

sys.path.insert(0, str(Path(__file__).parent / "data"))
from media import numbered_frames, write_video
from sounds import tone, write_clip, write_sound

SHAPE: dict[str, Any] = {
    "size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 4, "seconds": 0.64, "bins": 32, "audio_patch": 8,
    "fusion_layers": 1,
}  # fmt: skip
HOW: dict[str, Any] = {"loader.workers": 0, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for kind in ("flash", "dark"):
        (folder / kind).mkdir()
        for i in range(3):
            times = [0.2 + 0.1 * i, 0.9] if kind == "flash" else []
            write_clip(folder / kind / f"{i}.mp4", times, times, seconds=1.4)
    write_video(folder / "dark" / "mute.mp4", numbered_frames(24))
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    unveil.pretrain("avmae", data=folder, out=root / "av", max_steps=2, **SHAPE, **HOW)
    unveil.pretrain("mavil", data=folder, out=root / "first", max_steps=2, missing="blank", **SHAPE, **HOW)
    teacher = {"teacher": str(root / "first"), "missing": "blank"}
    unveil.pretrain("mavil", data=folder, out=root / "second", max_steps=2, **teacher, **HOW)
    return root


def test_clips_without_sound_are_counted(runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Left out before the run begins, and said; or kept, where silence is wanted."""
    dropped, kept = load(runs / "av").info["files"], load(runs / "first").info["files"]
    assert dropped == {"train": 4, "validation": 2, "bad": 0, "incomplete": 1}
    assert kept["train"] + kept["validation"] == 7
    assert "incomplete" not in kept
    unveil.evaluate(runs / "av", data=folder, by="knn", device="cpu", workers=0, out=runs / "e")
    assert "1 of 7 files have no sound track and are left out" in capsys.readouterr().err
    blank = {
        "by": "knn",
        "missing": "blank",
        "test": folder,
        "out": runs / "e",
        "device": "cpu",
        "workers": 0,
        "quiet": True,
    }
    assert unveil.evaluate(runs / "av", data=folder, **blank).metrics["samples"] == 7
    with pytest.raises(UserError, match="--missing blank: only of runs that see and hear"):
        unveil.evaluate(runs / "av", data=folder, use="video", **blank)


def test_a_preset_gives_way_to_the_teacher_and_a_flag_does_not(runs: Path) -> None:
    flags = {"size": "Ti", "crop": 96, "teacher": str(runs / "first")}
    first = load(runs / "first").info["flags"]
    found = settled(mavil.mavil, flags, {"teacher"})
    assert (found["size"], found["crop"]) == (first["size"], first["crop"])
    with pytest.raises(UserError, match="--size Ti: the teacher's is"):
        settled(mavil.mavil, flags, {"teacher", "size"})


def test_the_second_stage_has_its_teacher_s_weights_and_needs_its_folder_no_more(runs: Path) -> None:
    first, second = load(runs / "first", "cpu"), load(runs / "second", "cpu")
    theirs, ours = first.objective.state_dict(), second.objective.state_dict()
    names = [name for name in theirs if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(theirs[name], ours[f"targets.teacher.{name.removeprefix('encoder.')}"]) for name in names)
    assert second.info["flags"]["frames"] == SHAPE["frames"]
    with pytest.raises(UserError, match="--frames 8: the teacher's is 4; leave the flag out"):
        unveil.pretrain("mavil", data=runs, out=runs / "no", teacher=str(runs / "first"), frames=8, max_steps=1, **HOW)
    with pytest.raises(UserError, match="a run of avmae, which is no teacher of a mavil"):
        unveil.pretrain("mavil", data=runs, out=runs / "no", teacher=str(runs / "av"), max_steps=1, **HOW)


@pytest.mark.parametrize("run", ["av", "second"])
@pytest.mark.parametrize("use", ["both", "video", "audio"])
def test_each_stream_can_be_used_alone(runs: Path, folder: Path, tmp_path: Path, run: str, use: str) -> None:
    """Probed, fine-tuned, asked: a run of sound answers for files of sound as well."""
    report = unveil.evaluate(
        runs / run, data=folder, by="linear", use=use, device="cpu", workers=0, quiet=True, out=tmp_path / "e"
    )
    assert 0 <= report.metrics["top1"] <= 1
    tuned = unveil.finetune(
        runs / run, data=folder, out=tmp_path / "ft", use=use, max_steps=1, missing="drop",
        **{"sample.clips": 1}, **HOW,
    )  # fmt: skip
    sound = write_sound(tmp_path / "bark.wav", tone(1.0))
    rows = tuned.predict(folder / "dark" / "mute.mp4", sound)
    answered = ["top" in row for row in rows]
    assert answered[0] is (use == "video")  # the clip without sound
    assert answered[-1] is (use == "audio")
    if use == "both":
        assert "no sound track" in rows[0]["error"]
        from unveil.serve import predict

        assert "top" in next(predict(tuned, [folder / "dark" / "mute.mp4"], missing="blank"))


def test_videos_are_found_by_a_sound(runs: Path, folder: Path, tmp_path: Path) -> None:
    """An index of the video tower in the shared space; the query goes through the audio tower."""
    index = unveil.embed(runs / "second", data=folder, out=tmp_path / "index", device="cpu", quiet=True)
    info = json.loads((index / "index.json").read_text())
    assert (info["use"], info["pool"], info["signal"], info["width"]) == ("video", "shared", "video", 512)
    sound = write_sound(tmp_path / "bark.wav", tone(0.6))
    hits = unveil.search(index, sound, top=3, html=tmp_path / "page.html", device="cpu", quiet=True)
    assert len(hits) == 3
    assert "<audio" in (tmp_path / "page.html").read_text()
    run = load(runs / "second", "cpu")
    heard = run.embed([sound], use="audio", pool="shared")
    seen = run.embed([hits[0].path], use="video", pool="shared")
    near = torch.nn.functional.cosine_similarity(torch.from_numpy(seen), torch.from_numpy(heard[:1]))
    assert near.max().item() == pytest.approx(hits[0].similarity, abs=1e-5)
    assert unveil.search(index, folder / "flash" / "0.mp4", top=1, device="cpu", quiet=True)[0].similarity > 0.999
    both = unveil.embed(runs / "second", data=folder, out=tmp_path / "both", use="both", device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"read by the tower 'audio'.*--use video"):
        unveil.search(both, sound, device="cpu", quiet=True)
    plain = unveil.embed(runs / "av", data=folder, out=tmp_path / "plain", device="cpu", quiet=True)
    assert json.loads((plain / "index.json").read_text())["use"] == "both"
    with pytest.raises(UserError, match="in another space"):
        unveil.search(plain, sound, device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"--pool shared.*towers are video, audio"):
        unveil.embed(
            runs / "second", data=folder, out=tmp_path / "x", use="both", pool="shared", device="cpu", quiet=True
        )
    with pytest.raises(UserError, match=r"--use text: .* has video, audio, both"):
        unveil.embed(runs / "second", data=folder, out=tmp_path / "x", use="text", device="cpu", quiet=True)


def test_the_report_shows_and_plays_both(runs: Path) -> None:
    page = unveil.report(runs / "av", device="cpu", quiet=True).read_text()
    assert page.count("<audio") >= 3  # the sound itself, what was to be heard, what was guessed
    assert "Parts of the loss: reconstruction" in page
    assert "picture" in page
    second = unveil.report(runs / "second", device="cpu", quiet=True).read_text()
    assert "Parts of the loss: contrast" in second


@pytest.mark.parametrize(("use", "shapes"), [("both", 2), ("audio", 1)])
def test_exports_take_both_or_one(runs: Path, tmp_path: Path, use: str, shapes: int) -> None:
    file = unveil.export(runs / "second", format="torch", use=use, out=tmp_path / "n.pt2", quiet=True)
    program = torch.export.load(file).module()
    run = load(runs / "second", "cpu")
    batch = {"video": torch.randn(3, 3, 4, 32, 32), "audio": torch.randn(3, 1, 10240)}
    given = list(batch.values())[-shapes:]
    tower: Any = run.tower(use).encoder
    expected = tower.pool(tower(batch)) if use == "both" else run.objective.features("audio", batch["audio"])  # pyright: ignore
    torch.testing.assert_close(program(*given), expected, rtol=1e-4, atol=1e-5)

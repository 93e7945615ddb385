"""Sound through every verb: learned from, labelled (several labels a file), measured, asked, found, shown, exported."""

from __future__ import annotations

import base64
import io
import json
import re

import av
import numpy as np
import pytest
from sounds import tone, write_clip, write_sound

import unveil
from unveil.serve.index import read_index

TINY = {"size": "debug", "seconds": 0.32, "rate": 8000, "bins": 32, "patch": 8}
FAST = {"loader.workers": 0, "schedule.batch": 8, "loader.batch": 8, "quiet": True, "seed": 1, "max_steps": 4}
NOTES = {"low": 300.0, "middle": 900.0, "high": 2500.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of one note or two, in several formats; a list with a label for each note; and a video with a sound track."""
    folder = tmp_path_factory.mktemp("data") / "sounds"
    folder.mkdir()
    lines = ["path,label,split"]
    rng = np.random.default_rng(0)
    for number in range(24):
        names = [*NOTES][number % 3 :][: 1 + (number % 4 == 0)]
        x = sum(tone(0.5, 16000, NOTES[name], 0.3) for name in names) + 0.01 * rng.standard_normal(8000)
        suffix = (".wav", ".flac", ".mp3", ".ogg", ".m4a")[number % 5]
        write_sound(folder / f"{number}{suffix}", np.asarray(x, np.float32))
        lines.append(f"{number}{suffix},{';'.join(names)},{'val' if number % 4 == 3 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", [0.4], [0.4, 0.9], seconds=1.2, sound=(0.2, 1.2))


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
    return unveil.pretrain("audiomae", data=folder, out=tmp_path_factory.mktemp("runs") / "a", **TINY, **FAST)


@pytest.fixture(scope="module")
def tuned(pretrained, folder, tmp_path_factory):
    more = {
        "balance": True,
        "sample.mixup": 10.0,
        "sample.mixed": 0.5,
        "optimizer.lr": 0.05,
        "optimizer.layer_decay": 1.0,
    }
    return unveil.finetune(
        pretrained.path, data=folder, out=tmp_path_factory.mktemp("tuned") / "b", **{**FAST, **more, "max_steps": 30}
    )


def sounds_in(page: str) -> list[float]:
    """The seconds of every player of a page."""
    lengths = []
    for data in re.findall(r'<audio controls preload="none" src="data:audio/mp4;base64,([^"]+)"', page):
        with av.open(io.BytesIO(base64.b64decode(data))) as file:
            frames = [frame for frame in file.decode(audio=0)]
            lengths.append(sum(frame.samples for frame in frames) / frames[0].sample_rate)
    return lengths


def test_learned(pretrained):
    assert all(np.isfinite(line["loss"]) for line in pretrained.log())
    assert "Sound(seconds=0.32, rate=8000)" in pretrained.info["preprocessing"]["signal"]


def test_several_labels_are_measured_by_map(tuned, folder):
    assert tuned.info["multi_label"]
    assert tuned.info["classes"] == sorted(NOTES)
    assert any("val_map" in line for line in tuned.log())
    report = unveil.evaluate(tuned.path, data=folder, quiet=True, workers=0)
    assert 0 <= report.metrics["map"] <= 1
    assert {row["class"] for row in report.per_class} == set(NOTES)


def test_a_probe_of_several_labels(pretrained, folder):
    report = unveil.evaluate(pretrained.path, data=folder, by="linear", quiet=True, workers=0)
    assert report.metrics["map"] > 0.5  # three notes, even by random features of a spectrum


def test_answers_about_every_window(tuned, folder, clip):
    rows = unveil.predict(tuned.path, folder / "0.wav", clip, top=2, quiet=True)
    of_clip = [row for row in rows if str(row["path"]).endswith("film.mp4")]
    assert [(row["start"], row["end"]) for row in of_clip][:2] == [(0.0, 0.32), (0.32, 0.64)]
    assert len(of_clip) == 4


def test_what_is_found_can_be_heard(pretrained, folder, clip, tmp_path):
    index = unveil.embed(pretrained.path, data=[folder, clip], out=tmp_path / "index", hop=0.16, quiet=True)
    assert read_index(index)["signal"] == "audio"
    hits = unveil.search(index, folder / "0.wav", top=3, html=tmp_path / "found.html", quiet=True)
    assert hits[0].path.endswith("0.wav")
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    page = (tmp_path / "found.html").read_text()
    assert "media-src data:" in page
    lengths = sounds_in(page)
    assert len(lengths) == 4
    assert lengths[0] == pytest.approx(0.5, abs=0.15)  # the query, whole
    hits = unveil.search(index, clip, top=2, html=tmp_path / "film.html", quiet=True)
    assert {hit.path for hit in hits} == {str(clip)}
    assert len(sounds_in((tmp_path / "film.html").read_text())) == 3  # its sound track, not its picture


def test_the_report_shows_and_plays(pretrained, tuned):
    page = unveil.report(pretrained.path, quiet=True).read_text()
    assert all(f"<span>{row}</span>" in page for row in ("input", "masked", "predicted"))
    lengths = sounds_in(page)
    assert len(lengths) >= 12 + 6  # of each of four files three, and those of neighbours
    assert max(lengths) < 0.6
    answers = unveil.report(tuned.path, quiet=True).read_text()
    assert 'id="answers"' in answers
    assert sounds_in(answers)


@pytest.mark.parametrize(("kind", "file"), [("safetensors", "a.safetensors"), ("torch", "a.pt2"), ("onnx", "a.onnx")])
def test_exported(tuned, tmp_path, kind, file):
    made = unveil.export(tuned.path, out=tmp_path / file, format=kind, quiet=True)  # and compared with the run
    assert made.is_file()
    about = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    if about:
        assert about[0]["input"] == {"name": "audio", "shape": ["batch", 1, 2560], "dtype": "float32"}

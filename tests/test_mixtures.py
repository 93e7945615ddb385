"""Images and clips in one run, with every verb: the stream, its weights, what is shown and what is answered."""

import json
import shutil

import numpy as np
import pytest
import torch
from media import numbered_frames, write_video
from PIL import Image

import unveil
from unveil import cli
from unveil.data import Manifest
from unveil.errors import UserError
from unveil.serve import samples
from unveil.training import loop

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 1}
FAST = {"loader.workers": 0, "schedule.batch": 8, "loader.batch": 4, "quiet": True, "seed": 3}
WEIGHTS = {"data_weight": [1, 2]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images of two classes, and clips of two others: eight and four files."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 0), ("bright", 128)):
        (root / "images" / name).mkdir(parents=True)
        for i in range(4):
            picture = rng.integers(level, level + 120, (36, 40, 3)).astype(np.uint8)
            Image.fromarray(picture).save(root / "images" / name / f"{i}.png")
    for name in ("left", "right"):
        (root / "clips" / name).mkdir(parents=True)
        for i in range(2):
            frames = numbered_frames(8, 36, 40, seed=i)
            write_video(root / "clips" / name / f"{i}.mp4", frames.flip(0) if name == "left" else frames)
    return root / "images", root / "clips"


@pytest.fixture(scope="module")
def pretrained(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "omni"
    return unveil.pretrain("omnimae", data=folders, out=out, max_steps=6, **TINY, **FAST, **WEIGHTS)


@pytest.fixture(scope="module")
def tuned(pretrained, folders, tmp_path_factory):
    """Fine-tuned on images, on clips, and on both."""
    out = tmp_path_factory.mktemp("tuned")
    more = {"images": {"settings": "images"}, "clips": {}, "both": {}}
    data = {"images": folders[0], "clips": folders[1], "both": folders}
    return {
        name: unveil.finetune(
            pretrained.path, data=data[name], out=out / name, max_steps=2, val_fraction=0.5, **FAST, **more[name]
        )
        for name in more
    }


def losses(run):
    return [line["loss"] for line in run.log()]


def same(a, b):
    a, b = a.objective.state_dict(), b.objective.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_remembers_its_folders_and_their_weights(pretrained, folders):
    assert pretrained.info["asked"]["data"] == [str(folder.resolve()) for folder in folders]
    assert pretrained.info["asked"]["data_weight"] == [1.0, 2.0]
    manifest = Manifest.load(pretrained.path / "manifest.parquet")
    assert manifest.weights is not None
    weights = dict(zip(manifest.column("path"), manifest.weights.tolist(), strict=True))
    assert {(path.rpartition(".")[2], weight) for path, weight in weights.items()} == {("png", 1.0), ("mp4", 2.0)}
    assert "Visual" in pretrained.info["preprocessing"]["signal"]
    with pytest.raises(UserError, match=r"--data-weight: was \[1\.0, 2\.0\], is not given"):
        unveil.pretrain("omnimae", data=folders, out=pretrained.path, max_steps=6, **TINY, **FAST)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_off_goes_on_bit_for_bit(pretrained, folders, tmp_path, monkeypatch, workers):
    flags = {**TINY, **FAST, **WEIGHTS, "loader.workers": workers, "checkpoint_every": 0}
    write = loop.Log.step

    def die(log, numbers):
        write(log, numbers)
        if numbers["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Log, "step", die)
    with pytest.raises(KeyboardInterrupt):
        unveil.pretrain("omnimae", data=folders, out=tmp_path / "cut", max_steps=6, **flags)
    monkeypatch.setattr(loop.Log, "step", write)
    cut = unveil.pretrain("omnimae", data=folders, out=tmp_path / "cut", max_steps=6, **flags)
    assert losses(cut) == losses(pretrained)
    assert same(cut, pretrained)


def test_a_folder_that_weighs_more_is_seen_more(folders, tmp_path, capsys):
    flags = {**TINY, **FAST, "quiet": False, "schedule.epochs": 1, "sample.repeats": 1, "schedule.batch": 2}
    flags["val_fraction"] = 0
    for weights, steps, told in (
        ([], 6, "2 of videos, 4 of images"),
        (["0.5", "3"], 8, "6 of videos, 2 of images"),
    ):
        out = tmp_path / str(steps)
        run = unveil.pretrain("omnimae", data=folders, out=out, data_weight=weights, **flags)
        assert len(run.log()) == steps
        assert told in capsys.readouterr().err


def test_the_command_line(folders, tmp_path, capsys):
    images, clips = map(str, folders)
    words = ["pretrain", "omnimae", "--data", images, "--data-weight", "1", "--data", clips, "--data-weight", "0.5"]
    words += ["--out", str(tmp_path / "run"), "--max-steps", "1", "--quiet", "--loader.workers", "0"]
    words += [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    cli.run(words)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["data_weight"] == [1.0, 0.5]
    with pytest.raises(UserError, match="--data-weight: 1 of them, but 2 of --data"):
        cli.run([*words[:8], *words[10:], "--overwrite"])
    with pytest.raises(UserError, match="given twice"):
        cli.run([*words[:4], "--data", images, "--out", str(tmp_path / "other")])


def test_the_report_shows_both(pretrained, tuned, folders):
    manifest = samples.manifest_of(pretrained)
    assert manifest is not None
    strips, unreadable = samples.reconstructions(pretrained, manifest)
    assert not unreadable
    assert [strip["name"].rpartition(".")[2] for strip in strips] == ["png", "png", "mp4", "mp4"]
    assert [card["name"].rpartition(".")[2] for card in samples.answers(tuned["both"], manifest, count=4)].count(
        "mp4"
    ) == 2
    few = manifest.select([0, len(manifest) - 1])
    assert samples.chosen(pretrained, few, 1) == [0, 1]  # one of each at least
    page = unveil.report(pretrained.path, quiet=True).read_text(encoding="utf-8")
    assert all(strip["name"] in page for strip in strips)


@pytest.mark.parametrize(("name", "kind"), [("images", 0), ("clips", 1), ("both", 0), ("both", 1)])
def test_a_classifier_of_either_is_evaluated_and_answers(tuned, folders, name, kind):
    run = tuned[name]
    report = unveil.evaluate(run.path, data=folders[kind], views="2x1", workers=0, quiet=True)
    assert report.confusion.sum() == (8, 4)[kind]
    rows = run.predict(folders[kind])
    assert {row["start"] is None for row in rows} == {kind == 0}
    assert all(len(row["top"]) == min(5, len(run.classes)) for row in rows)


def test_a_classifier_of_both_is_evaluated_on_both(tuned, folders):
    report = unveil.evaluate(tuned["both"].path, data=folders, workers=0, quiet=True)
    assert report.confusion.sum() == 12
    rows = tuned["both"].predict(folders[1], folders[0], folders[1] / "left" / "0.mp4")
    assert len({row["path"] for row in rows}) == 12


def test_probes_see_both_and_the_attentive_one_says_why_not(pretrained, folders):
    for by in ("knn", "linear"):
        report = unveil.evaluate(pretrained.path, data=folders, by=by, val_fraction=0.5, workers=0, quiet=True)
        assert report.confusion.sum() == 6
    with pytest.raises(UserError, match="Give images or clips"):
        unveil.evaluate(pretrained.path, data=folders, by="attentive", val_fraction=0.5, workers=0, quiet=True)
    unveil.evaluate(pretrained.path, data=folders[0], by="attentive", val_fraction=0.5, workers=0, quiet=True)


def test_an_index_of_both_is_searched_with_either(pretrained, folders, tmp_path):
    index = unveil.embed(pretrained.path, data=folders, out=tmp_path / "index", quiet=True)
    for query in (folders[0] / "dark" / "1.png", folders[1] / "right" / "1.mp4"):
        best = unveil.search(index, query, top=12, html=tmp_path / "page.html", quiet=True)
        assert best[0].path == str(query)
        assert {hit.path.rpartition(".")[2] for hit in best} == {"png", "mp4"}
        assert "data:image" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "frames"), [("images", 2), ("clips", 4)])
def test_what_is_exported_takes_what_the_run_learned_from(tuned, folders, tmp_path, name, frames):
    file = tmp_path / f"{name}.pt2"
    unveil.export(tuned[name].path, format="torch", out=file, quiet=True)
    program = torch.export.load(file).module()
    assert program(torch.zeros(2, 3, frames, 32, 32)).shape == (2, 2)
    # Or what the files are that it is compared on.
    unveil.export(
        tuned[name].path, format="torch", out=file, data=folders[name == "images"], overwrite=True, quiet=True
    )
    program = torch.export.load(file).module()
    assert program(torch.zeros(2, 3, 6 - frames, 32, 32)).shape == (2, 2)


def test_bad_files_of_either_kind_are_named(folders, tmp_path):
    root = tmp_path / "data"
    for folder in folders:
        shutil.copytree(folder, root / folder.name)
    (root / "images" / "dark" / "0.png").write_bytes(b"no picture")
    (root / "clips" / "left" / "0.mp4").write_bytes(b"no video")
    data = [root / "images", root / "clips"]
    flags = {**TINY, **FAST, "max_bad": 0.5, "val_fraction": 0}
    run = unveil.pretrain("omnimae", data=data, out=tmp_path / "run", max_steps=12, **flags)
    assert {path["path"].rpartition(".")[2] for path in run.bad_files()} == {"png", "mp4"}

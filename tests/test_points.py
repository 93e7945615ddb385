"""The main job on clouds of points: every verb, files of several kinds, files that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import unveil
from unveil.data import Dataset, Manifest
from unveil.errors import UserError
from unveil.flags import build
from unveil.state_dict import read_state_dict
from unveil.training import loop

TINY = {"size": "debug", "points": 64, "group": 16, "neighbours": 4}
FAST = {**TINY, "loader.workers": 0, "schedule.batch": 4, "loader.batch": 4, "quiet": True, "seed": 3}
CLASSES = ["ball", "stick"]


def cloud(kind: str, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(90, 3))
    return x if kind == "ball" else x * [10, 1, 1]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two classes of six clouds in files of all kinds, and a bad one."""
    folder = tmp_path_factory.mktemp("scans")
    for kind in CLASSES:
        (folder / kind).mkdir()
        for i in range(4):
            np.save(folder / kind / f"{i}.npy", cloud(kind, i).astype(np.float16))
        np.savetxt(folder / kind / "4.xyz", cloud(kind, 4)[:30])  # fewer than are asked for
        trimesh.creation.icosphere(subdivisions=1).apply_scale([9, 1, 1] if kind == "stick" else 1).export(
            folder / kind / "5.off"
        )
    few = cloud("ball", 9)
    few[::2] = np.nan
    np.save(folder / "ball" / "holes.npy", few)
    (folder / "stick" / "broken.ply").write_bytes(b"ply\nno header")
    return folder


@pytest.fixture(scope="module")
def pretrained(scans, tmp_path_factory):
    return unveil.pretrain("mae3d", data=scans, out=tmp_path_factory.mktemp("runs") / "a", max_steps=6, **FAST)


@pytest.fixture(scope="module")
def finetuned(pretrained, scans, tmp_path_factory):
    flags = {name: value for name, value in FAST.items() if name not in TINY} | {"optimizer.lr": 0.2, "precise_bn": 4}
    out = tmp_path_factory.mktemp("runs") / "b"
    return unveil.finetune(pretrained.path, data=scans, out=out, max_steps=25, val_fraction=0.34, max_bad=0.5, **flags)


def test_pretraining(pretrained):
    log = pretrained.log()
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite([line["loss"], line["loss_centres"], line["loss_points"]]).all() for line in log)
    assert {"rankme"} <= set(log[-1])
    assert [Path(line["path"]).name for line in pretrained.bad_files()] == ["broken.ply"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_off_goes_on_bit_for_bit(scans, tmp_path, monkeypatch, workers):
    flags = {**FAST, "loader.workers": workers, "checkpoint_every": 0, "max_steps": 5}
    whole = unveil.pretrain("mae3d", data=scans, out=tmp_path / "whole", **flags)
    write = loop.Log.step

    def die(log, numbers):
        write(log, numbers)
        if numbers["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Log, "step", die)
    with pytest.raises(KeyboardInterrupt):
        unveil.pretrain("mae3d", data=scans, out=tmp_path / "cut", **flags)
    monkeypatch.setattr(loop.Log, "step", write)
    cut = unveil.pretrain("mae3d", data=scans, out=tmp_path / "cut", **flags)
    assert [line["loss"] for line in cut.log()] == [line["loss"] for line in whole.log()]
    theirs = cut.objective.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in whole.objective.state_dict().items())


def test_fine_tuning_begins_with_the_graph_network(finetuned, pretrained):
    assert finetuned.classes == CLASSES
    assert "val_top1" in finetuned.log()[-1]
    assert finetuned.info["flags"]["points"] == 64
    ours = dict(finetuned.objective.named_parameters())
    before = read_state_dict(pretrained.path / "weights.safetensors")
    moved = [(ours[name] - before[name]).abs().max() for name in ours if name.startswith("encoder.")]
    assert 0 < max(moved) < 0.2


def test_evaluate_predict_embed_search(finetuned, pretrained, scans, tmp_path):
    result = unveil.evaluate(finetuned.path, data=scans, quiet=True, workers=0)
    assert result.metrics["top1"] > 0.6
    assert len(result.bad) == 1
    neighbours = unveil.evaluate(pretrained.path, data=scans, by="knn", quiet=True, workers=0)
    assert neighbours.metrics["top1"] > 0.5
    rows = list(unveil.predict(finetuned.path, scans / "ball", quiet=True))
    assert [row["start"] for row in rows] == [None] * 7
    assert all({name for name, _ in row["top"]} == set(CLASSES) for row in rows)
    unveil.embed(pretrained.path, data=scans, out=tmp_path / "index", quiet=True)
    hits = unveil.search(tmp_path / "index", scans / "stick/0.npy", top=3, html=tmp_path / "hits.html", quiet=True)
    assert hits[0].path.endswith("stick/0.npy")
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    page = (tmp_path / "hits.html").read_text()
    assert page.count("data:image/jpeg") == 4


def test_reports_show_clouds(finetuned, pretrained):
    page = unveil.report(pretrained.path).read_text()
    assert page.count("input and masked and predicted of") == pretrained.info["files"]["validation"] > 0
    assert "from the right, from the front and from above" in page
    assert "Visible patches are copied" not in page
    page = unveil.report(finetuned.path).read_text()
    assert "Reconstructions</h2>" not in page
    assert page.count("data:image/jpeg") >= 12


@pytest.mark.parametrize("part", ["whole", "encoder"])
def test_export(finetuned, pretrained, scans, tmp_path, part):
    run = finetuned if part == "whole" else pretrained
    unveil.export(run.path, format="torch", out=tmp_path / "a.pt2", data=[scans / "ball"], part=part, quiet=True)
    unveil.export(run.path, format="safetensors", out=tmp_path / "a.safetensors", part=part, quiet=True)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["input"]["shape"] == ["batch", 3, 64]
    assert told["preprocessing"]["values"].startswith("coordinates minus their mean")


def test_a_sample_is_a_function_of_its_seed(scans):
    manifest = Manifest.scan([scans / "ball"], {".npy", ".xyz", ".off"})
    data = build("mae3d", **TINY).data

    def drawn(epoch, seed=0):
        dataset = Dataset(manifest, data, None, training=True, seed=seed)
        return [dataset[epoch, index][0]["points"] for index in range(len(manifest))]

    assert all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn(0), drawn(1), strict=True))
    assert all(x.shape == (3, 64) and x.isfinite().all() for x in drawn(0))
    held = Dataset(manifest, data, None, training=False, seed=5)
    again = Dataset(manifest, data, None, training=False, seed=6)
    assert all(torch.equal(held[i][0]["points"], again[i][0]["points"]) for i in range(len(manifest)))
    assert held[0][0]["points"].shape == (1, 3, 64)


def test_files_of_another_kind_are_named(scans, tmp_path):
    with pytest.raises(UserError, match=r"\.npy"):
        unveil.pretrain("mae", data=scans, out=tmp_path / "a", size="debug", max_steps=1, quiet=True)

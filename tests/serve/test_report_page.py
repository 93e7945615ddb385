import json
import re

import numpy as np
import pytest
import torch
from serving_runs import IMAGE, VIDEO, make_run, write_image, write_log, write_manifest, write_video

from unveil.data import Row
from unveil.errors import UserError
from unveil.evaluation import summarise
from unveil.serve import report
from unveil.serve import samples as samples_module

EVIL = "<script>alert('x')</script>"
ASKED = {"asked": {"data": [f"/data/{EVIL}"], "seed": 0, "start": None}}


def lines(steps, **more):
    return [
        {"step": i + 1, "loss": 1 / (i + 1), "lr": 1e-3, "data_wait": 0.1, "samples_per_s": 5.0, **more}
        for i in range(steps)
    ]


def self_contained(page):
    """Nothing is loaded, nothing runs."""
    assert "<script" not in page.lower()
    assert not re.search(r"\bon\w+\s*=\s*[\"']", page)
    for _, target in re.findall(r"(src|href)\s*=\s*\"([^\"]*)\"", page):
        assert target.startswith(("data:image/", "#")) or target == "bad.jsonl"
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    run = make_run(folder / "run", "videomae", VIDEO, files={"train": 7, "validation": 0}, total_steps=300, **ASKED)
    rows = [Row(str(write_video(folder / "clips" / f"{i}.mp4", 1.0, 40 * i))) for i in range(4)]
    rows.append(Row(str(write_video(folder / "clips" / "<img src=x onerror=alert(1)>.mp4", 1.0)), start=0.2, end=0.9))
    (folder / "clips" / "broken.mp4").write_bytes(b"no video")
    (folder / "clips" / "late.mp4").write_bytes(b"broken since")
    rows += [Row(str(folder / "clips" / "broken.mp4")), Row(str(folder / "clips" / "late.mp4"))]
    write_manifest(run, rows)
    write_log(run, [*lines(200), {"step": 201, "loss": float("nan"), "rankme": 3.0}, {"step": 202, "rankme": 4.5}])
    error = {"path": str(folder / "clips" / "broken.mp4"), "error": f"Invalid data {EVIL}"}
    (run.path / "bad.jsonl").write_text(json.dumps(error) + "\n")
    return run


def test_pretraining(pretrained):
    path = report(pretrained)
    assert path == pretrained.path / "report.html"
    page = path.read_text()
    self_contained(page)
    assert "Reconstructions" in page
    assert page.count("input and masked and predicted of") >= 3
    assert "&lt;img src=x onerror=alert(1)&gt;.mp4 from 0.2 s" in page
    assert "Nearest neighbours" in page
    assert "Of 5 samples" in page
    assert "Invalid data &lt;script&gt;" in page
    assert "1 of the files chosen for pictures cannot be read" in page
    assert "202 of 300" in page
    assert "4.5" in page
    assert ">Answers<" not in page
    for name in ("Loss", "Learning rate", "Time spent waiting for data", "RankMe"):
        assert f"<b>{name}" in page
    assert torch.__version__.split("+")[0] in page
    assert page.count("<svg") == 5
    for name in ("weight_decay", "warmup", "parameters (video encoder)", "clip_gradient", "precision"):
        assert f">{name}</th>" in page


def test_what_is_predicted_but_no_picture_is_drawn_beside_what_was_wanted(tmp_path, pretrained):
    run = make_run(tmp_path / "run", "maskfeat", IMAGE, files={"train": 2, "validation": 0}, total_steps=1, **ASKED)
    write_manifest(run, [Row(str(write_image(tmp_path / f"{i}.png", i))) for i in range(2)])
    page = report(run).read_text()
    self_contained(page)
    assert page.count("<span>wanted</span>") == 2
    assert "star of lines" in page
    assert "star of lines" not in report(pretrained).read_text()


def test_elsewhere_and_into_a_folder(pretrained, tmp_path):
    assert report(pretrained, tmp_path / "sub" / "page.html").is_file()
    with pytest.raises(UserError, match="is a folder"):
        report(pretrained, tmp_path)


def test_supervised_with_evaluations(tmp_path):
    classes = ["cat", EVIL]
    run = make_run(tmp_path / "run", "vit", {**IMAGE, "num_classes": 2}, classes, command=["train", "vit", "a b"])
    rows = [Row(str(write_image(tmp_path / "p" / f"{i}.png", i)), classes[i % 2]) for i in range(6)]
    write_manifest(run, rows[:4])
    write_manifest(run, rows[4:], "validation")
    write_log(run, [{**line, "top1": 0.5, "val_top1": 0.25} for line in lines(3)])
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    summarise("accuracy", p, torch.tensor([0, 1]), torch.arange(2), classes, k=3).save(run.path / "evaluate")
    (run.path / "evaluate" / "other.json").write_text("[]")
    (run.path / "evaluate" / "torn.json").write_text('{"name"')
    page = report(run).read_text()
    self_contained(page)
    assert "unveil train vit &#39;a b&#39;" in page
    assert "Files held out from training" in page
    assert page.count("true: ") == 2
    assert re.search(r'class="(good|bad)">(cat|&lt;script)', page)
    assert "<h3>accuracy</h3>" in page
    assert "0.5000" in page
    assert 'alt="confusion matrix of accuracy"' in page
    assert "25.0 %" in page
    assert "Reconstructions</h2>" not in page
    assert "Every file that was met could be read" in page
    multi = summarise("map", p, torch.tensor([[1.0, 0], [1, 1]]), torch.arange(2), classes)
    multi.save(run.path / "evaluate")
    assert "average precision" in report(run).read_text()


def test_without_data_without_manifest_without_weights_without_log(tmp_path):
    run = make_run(tmp_path / "run", "vit", {**IMAGE, "num_classes": 2}, ["a", "b"])
    assert "no manifest.parquet" in report(run).read_text()
    write_manifest(run, [Row(str(tmp_path / "gone" / f"{i}.png"), "a") for i in range(3)])
    page = report(run).read_text()
    assert "did the data move?" in page
    assert "gone/0.png" in page
    assert "no step has been taken yet" in page
    self_contained(page)
    (run.path / "weights.safetensors").unlink()
    from unveil.run import load

    assert "weights.safetensors is missing" in report(load(run.path, "cpu")).read_text()


def test_neighbours_stop_when_time_is_up(pretrained):
    manifest = samples_module.manifest_of(pretrained)
    assert manifest is not None
    rows, count = samples_module.neighbours(pretrained, manifest, seconds=0)
    assert (rows, count) == ([], 1)
    rows, count = samples_module.neighbours(pretrained, manifest, queries=2, top=3)
    assert count == 5
    assert [len(row) for row in rows] == [4, 4]
    for row in rows:
        assert row[0]["similarity"] is None
        values = [card["similarity"] for card in row[1:]]
        assert values == sorted(values, reverse=True)
        assert max(values) <= 1 + 1e-5


def test_spread(pretrained):
    manifest = samples_module.manifest_of(pretrained)
    assert manifest is not None
    assert len(manifest) == 6  # the file that was bad in training is not tried again
    assert samples_module.spread(manifest, 3) == [0, 2, 5]
    assert samples_module.spread(manifest, 99) == list(range(6))
    assert np.all(np.diff(samples_module.spread(manifest, 4)) > 0)


def test_many_bad_files_are_counted_by_kind_and_listed_up_to_a_limit(tmp_path):
    run = make_run(
        tmp_path / "run", "vit", {**IMAGE, "num_classes": 2}, ["a", "b"], files={"train": 1500, "validation": 100}
    )
    rows = [(f"/d/{i}.mp4", f"/d/{i}.mp4: Invalid data found (error {i})") for i in range(300)]
    rows += [(f"/d/e{i}.mp4", f"e{i}.mp4 is empty") for i in range(20)]
    (run.path / "bad.jsonl").write_text("".join(json.dumps({"path": p, "error": e}) + "\n" for p, e in rows))
    page = report(run).read_text()
    self_contained(page)
    assert "320 (20.0 %)" in page
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(r"\b300\s+Invalid data found \(error …\)", text)
    assert re.search(r"\b20\s+is empty", text)
    assert '<a href="bad.jsonl">' in page
    assert page.count('<td class="mono">/d/') == 200
    page = report(run, tmp_path / "elsewhere.html").read_text()
    assert 'href="bad.jsonl"' not in page
    assert str(run.path / "bad.jsonl") in page


def test_a_run_that_stopped_for_its_loss_says_so(tmp_path):
    run = make_run(tmp_path / "run", "vit", {**IMAGE, "num_classes": 2}, ["a", "b"])
    write_log(run, lines(4))
    (run.path / "nan").mkdir()
    file = run.path / "nan" / "rank-0.json"
    file.write_text(json.dumps({"step": 5, "loss": EVIL, "gradient_norm": "inf"}))
    page = report(run).read_text()
    self_contained(page)
    assert "Stopped before step 5: the loss was &lt;script&gt;" in page
    file.write_text(json.dumps({"step": 3, "loss": "nan", "gradient_norm": "nan"}))  # it has gone on since
    assert "Stopped before" not in report(run).read_text()
    file.write_text("{")
    assert "Stopped before" not in report(run).read_text()

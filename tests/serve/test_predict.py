import csv
import json

import pytest
import torch
from serving_runs import IMAGE, VIDEO, make_run, write_image, write_video

from unveil.errors import UserError
from unveil.serve import predict, print_rows, write_rows
from unveil.serve import windows as windows_module
from unveil.serve.windows import BadFile, Batch, clock, files, stream

CLASSES = ["walk", "run", "a [b]c[/b]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "b", "vit", {**VIDEO, "num_classes": 3}, CLASSES)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "long.mp4", 2.5)
    write_video(folder / "deep" / "short.MP4", 0.5)
    write_video(folder / ".hidden" / "no.mp4", 0.5)
    (folder / "deep" / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a clip")
    return folder


def test_files(clips, tmp_path):
    found = files([clips, clips / "long.mp4", clips / "notes.txt"], {".mp4"})
    assert [str(f.relative_to(clips)) for f in found] == ["deep/broken.mp4", "deep/short.MP4", "long.mp4", "notes.txt"]
    for paths, words in (([tmp_path / "none"], "no such"), ([tmp_path], "no files with"), ([], "no files given")):
        with pytest.raises(UserError, match=words):
            files(paths, {".mp4"})


def test_windows_cross_files_and_keep_their_order(run, clips):
    items = list(stream(run.recipe.data, [clips], None, 2))
    assert isinstance(items[0], BadFile)
    assert "broken.mp4" in items[0].error
    batches = [item for item in items if isinstance(item, Batch)]
    assert [len(b.windows) for b in batches] == [2, 2, 1]  # 1 + 4 windows of 0.8 s, the first batch of two files
    assert {w.path[-9:] for w in batches[0].windows} == {"short.MP4", "/long.mp4"}
    assert batches[0].x["video"].shape == (2, 4, 3, 32, 32)
    assert batches[0].on(torch.device("cpu"), run.recipe.data)["video"].shape == (2, 3, 4, 32, 32)
    times = [(w.start, w.end) for b in batches for w in b.windows if w.path.endswith("long.mp4")]
    assert times == [pytest.approx(t) for t in [(0, 0.8), (0.8, 1.6), (1.6, 2.4), (2.4, 2.5)]]


def test_a_failure_in_the_middle_comes_after_what_was_read(run, clips, monkeypatch):
    def windows(path, hop):
        yield 0.0, 1.0, torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
        if "long" in str(path):
            raise OSError("cut off")

    signal = type("Signal", (), {"windows": staticmethod(windows), "suffixes": {".mp4"}, "key": "video"})()
    monkeypatch.setattr(run.recipe.data, "signal", signal)
    items = list(stream(run.recipe.data, [clips / "long.mp4", clips / "deep" / "short.MP4"], None, 8))
    assert [type(item) for item in items] == [Batch, BadFile, Batch]
    assert items[1].error == "cut off"


def test_memory_is_bounded(run, clips, monkeypatch):
    """A film without end: windows are read only as they are asked for."""
    read = []

    def windows(path, hop):
        number = 0
        while True:
            read.append(number)
            yield float(number), number + 1.0, torch.full((4, 3, 40, 40), number % 256, dtype=torch.uint8)
            number += 1

    signal = type("Signal", (), {"windows": staticmethod(windows), "suffixes": {".mp4"}, "key": "video"})()
    monkeypatch.setattr(run.recipe.data, "signal", signal)
    items = stream(run.recipe.data, [clips / "long.mp4"], None, 3)
    for seen in (3, 6, 9):
        next(items)
        assert len(read) == seen


def test_rows(run, clips):
    rows = list(predict(run, [clips], top=2, batch=3))
    assert [set(row) for row in rows] == [{"path", "error"}] + [{"path", "start", "end", "top"}] * 5
    for row in rows[1:]:
        assert len(row["top"]) == 2
        assert row["top"][0][1] >= row["top"][1][1]
        assert row["top"][0][0] in CLASSES
    # Not on how windows are put into batches does the answer depend.
    again = list(predict(run, [clips], top=2, batch=1))
    for one, other in zip(rows[1:], again[1:], strict=True):
        assert one["top"][0][1] == pytest.approx(other["top"][0][1], abs=1e-5)
    everything = list(predict(run, [clips / "long.mp4"], top=99))
    assert sum(p for _, p in everything[0]["top"]) == pytest.approx(1, abs=1e-5)


def test_hop(run, clips):
    starts = [row["start"] for row in predict(run, [clips / "long.mp4"], hop=0.4)]
    assert starts[:4] == pytest.approx([0, 0.4, 0.8, 1.2])


def test_the_answer_is_the_network_s(run, clips):
    row = next(predict(run, [clips / "long.mp4"], top=1))
    frames = next(iter(run.recipe.data.signal.windows(clips / "long.mp4")))[2]
    for transform in run.recipe.data.evaluation:
        frames = transform(frames)
    x = frames.float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (run.recipe.data.mean, run.recipe.data.std))
    with torch.no_grad():
        p = run.objective.logits({"video": ((x - mean) / std).transpose(0, 1)[None]}).softmax(1)[0]
    assert row["top"][0] == (CLASSES[p.argmax()], pytest.approx(p.max().item(), abs=1e-4))


def test_images_with_several_labels(tmp_path):
    run = make_run(tmp_path / "i", "vit", {**IMAGE, "num_classes": 3, "multi_label": True}, CLASSES)
    write_image(tmp_path / "pictures" / "a.png", 0)
    (row,) = predict(run, [tmp_path / "pictures"], top=3)
    assert (row["start"], row["end"]) == (None, None)
    assert sum(p for _, p in row["top"]) == pytest.approx(1.5, abs=0.3)  # near-zero logits: half each, not a third


def test_errors(run, clips, tmp_path):
    for options, words in (({"top": 0}, "--top"), ({"hop": 0.0}, "--hop"), ({"batch": 0}, "--batch")):
        with pytest.raises(UserError, match=words):
            list(predict(run, [clips], **options))
    unlabelled = make_run(tmp_path / "a", "videomae", VIDEO)
    with pytest.raises(UserError, match="finetune"):
        list(predict(unlabelled, [clips]))


ROWS = [
    {"path": "bad.mp4", "error": "bad.mp4: broken"},
    {"path": "é\udcff.mp4", "start": 0.0, "end": 0.8, "top": [("walk", 0.75), ('say "hi", you', 0.25)]},
    {"path": "é\udcff.mp4", "start": 0.8, "end": 1.5, "top": [("walk", 0.5), ("run", 0.5)]},
]


def test_json_and_json_lines(tmp_path):
    write_rows(iter(ROWS), tmp_path / "p.json")
    write_rows(iter(ROWS), tmp_path / "p.JSONL")
    rows = json.loads((tmp_path / "p.json").read_text())
    assert rows == [json.loads(line) for line in (tmp_path / "p.JSONL").read_text().splitlines()]
    assert rows[0] == ROWS[0]
    assert rows[1]["path"] == ROWS[1]["path"]  # also a name that is no UTF-8 comes back as it was
    assert rows[1]["top"][1] == {"class": 'say "hi", you', "probability": 0.25}
    write_rows([], tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_csv(tmp_path):
    write_rows(iter(ROWS), tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert list(rows[0]) == ["path", "start", "end", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert rows[0]["error"] == "bad.mp4: broken"
    assert rows[1]["class_2"] == 'say "hi", you'
    assert float(rows[2]["end"]) == 1.5
    write_rows(ROWS[:1], tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text().splitlines() == ["path,start,end,error", "bad.mp4,,,bad.mp4: broken"]


def test_a_file_is_whole_or_not_there(tmp_path):
    def rows():
        yield ROWS[1]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_rows(rows(), tmp_path / "p.jsonl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"\.csv, \.json or \.jsonl"):
        write_rows([], tmp_path / "p.txt")


def test_print_rows(capsys):
    rows = [ROWS[0], {"path": "[red]x.mp4", "start": 3661.0, "end": 3662.5, "top": [("a [b]c[/b]", 0.75)]}]
    assert print_rows(iter(rows)) == rows
    text = capsys.readouterr().out
    assert "bad.mp4: broken" in text
    assert "[red]x.mp4" in text
    assert "1:01:01.0–1:01:02.5" in text
    assert "a [b]c[/b] 0.750" in text
    assert print_rows(rows, quiet=True) == rows
    assert capsys.readouterr().out == ""


def test_clock():
    assert clock(None, None) == ""
    assert clock(0, 59.96) == "0:00.0–1:00.0"


def test_half_precision_answers_nearly_the_same(run, clips):
    whole, half = (list(predict(run, [clips], top=3, precision=p)) for p in ("32", "bf16"))
    assert whole != half
    for a, b in zip(whole, half, strict=True):
        assert a["path"] == b["path"]
        if "top" in a:
            assert dict(b["top"]) == pytest.approx(dict(a["top"]), abs=0.02)


def test_a_cpu_is_given_few_long_clips_at_once_and_a_card_all(run, clips, monkeypatch):
    (batch,) = [item for item in stream(run.recipe.data, [clips / "long.mp4"], None, 8) if isinstance(item, Batch)]
    assert [len(p.windows) for p in batch.parts(torch.device("cpu"))] == [4]  # small ones: all
    monkeypatch.setattr(windows_module, "ON_CPU", 3 * batch.x["video"][0].numel())
    parts = list(batch.parts(torch.device("cpu")))
    assert [len(p.windows) for p in parts] == [3, 1]
    assert [w for p in parts for w in p.windows] == batch.windows
    assert torch.equal(torch.cat([p.x["video"] for p in parts]), batch.x["video"])
    assert [len(p.windows) for p in batch.parts(torch.device("cuda"))] == [4]
    whole = [row["top"] for row in predict(run, [clips / "long.mp4"], top=3)]
    monkeypatch.setattr(windows_module, "ON_CPU", 1)  # one at a time, however large it is
    assert [len(p.windows) for p in batch.parts(torch.device("cpu"))] == [1] * 4
    for one, other in zip(whole, predict(run, [clips / "long.mp4"], top=3), strict=True):
        assert dict(other["top"]) == pytest.approx(dict(one), abs=1e-5)

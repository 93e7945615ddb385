import csv
import json
import math

import numpy as np
import pytest
import torch
from evaluation_fakes import Classifier, Identity, batches

from unveil.errors import UserError
from unveil.evaluation import EVALUATORS, Subject, accuracy

CLASSES = ["a", "b", "c"]


def images(logits: torch.Tensor) -> torch.Tensor:
    """[n,V,classes] → [n,V,C,1,1]."""
    return logits[..., None, None].float()


def test_numbers_by_hand(tmp_path):
    logits = torch.tensor([[[5.0, 0, 0]], [[0, 5.0, 0]], [[0, 5.0, 0]], [[0, 5.0, 0]]])
    labels = torch.tensor([0, 1, 0, 1])
    report = accuracy(Classifier(), batches(images(logits), labels, size=3), CLASSES, "cpu")
    assert report.metrics == pytest.approx({"top1": 0.75, "top5": 1.0, "mean_class_accuracy": 0.75, "samples": 4})
    assert [row["accuracy"] for row in report.per_class] == [0.5, 1.0, None]
    assert [row["samples"] for row in report.per_class] == [2, 2, 0]
    assert report.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    wrong = [row for row in report.predictions if not row["correct"]]
    assert [(row["index"], row["label"], row["predicted"]) for row in wrong] == [(2, "a", "b")]


def test_top_five_of_many_classes():
    logits = torch.arange(10.0).expand(2, 1, 10)
    report = accuracy(Classifier(), batches(images(logits), torch.tensor([5, 4])), list("abcdefghij"), "cpu")
    assert report.metrics["top1"] == 0
    assert report.metrics["top5"] == 0.5


def test_views_are_averaged_after_the_softmax():
    # The mean of the logits would answer "a"; the mean of the probabilities answers "b".
    logits = torch.tensor([[[10.0, 0, -50], [0, 1.0, -50], [0, 1.0, -50], [0, 1.0, -50]]])
    assert logits.mean(1).argmax() == 0
    report = accuracy(Classifier(), batches(images(logits), torch.tensor([1])), CLASSES, "cpu")
    assert report.predictions[0]["predicted"] == "b"
    expected = float(logits.softmax(2).mean(1)[0, 1])
    assert report.predictions[0]["probability"] == pytest.approx(expected, abs=1e-5)


def test_several_labels():
    logits = torch.tensor([[[4.0, 4.0, -4.0]], [[-4.0, 4.0, -4.0]], [[-4.0, -2.0, -4.0]]])
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 0], [1, 0, 0]])
    report = accuracy(Classifier(), batches(images(logits), labels), CLASSES, "cpu")
    # a: ranks 1 and 2 (tied with the negative) of three; b: perfect; c: nobody has it.
    assert report.per_class[1]["average_precision"] == 1.0
    assert report.per_class[2]["average_precision"] is None
    assert report.metrics["map"] == pytest.approx(np.mean([report.per_class[0]["average_precision"], 1.0]))
    assert report.confusion is None
    assert report.predictions[0]["label"] == report.predictions[0]["predicted"] == "a;b"
    assert report.predictions[0]["probability"] == pytest.approx(1 / (1 + math.exp(-4)), abs=1e-5)


def test_evaluation_mode_inside_and_training_mode_after():
    objective = Classifier().train()
    objective.dropout.eval()  # someone froze a part: that must survive
    accuracy(objective, batches(images(torch.zeros(1, 1, 3)), torch.tensor([0])), CLASSES, "cpu")
    assert objective.seen == [False]
    assert objective.training
    assert not objective.dropout.training


@pytest.mark.parametrize(
    ("objective", "x", "labels", "classes", "words"),
    [
        (Identity(3), torch.zeros(1, 1, 3), torch.tensor([0]), CLASSES, "fine-tune"),
        (Classifier(), torch.zeros(1, 1, 3), None, CLASSES, "no labels"),
        (Classifier(), torch.zeros(0, 1, 3), None, CLASSES, "empty"),
        (Classifier(), torch.zeros(1, 1, 3), torch.tensor([0]), ["a", "b"], "3 classes"),
        (Classifier(), torch.zeros(1, 1, 3), torch.tensor([7]), CLASSES, "label 7"),
        (Classifier(), torch.zeros(1, 1, 3), torch.zeros(1, 3), CLASSES, "no sample has a label"),
    ],
)
def test_errors(objective, x, labels, classes, words):
    with pytest.raises(UserError, match=words):
        accuracy(objective, batches(images(x), labels), classes, "cpu")


def test_files_and_table(tmp_path):
    classes = ["plain", "a [red]name[/red] with $dollars$ and a great many letters in the middle", "雪", "<b>"]
    n = len(classes)
    labels = torch.arange(n).repeat(3)
    x = images(5 * torch.nn.functional.one_hot((labels + (torch.arange(12) > 8)) % n, n)[:, None])
    report = accuracy(Classifier(), batches(x, labels, size=5), classes, "cpu")
    paths = [f"clip {i}.mp4" for i in range(len(x))]
    written = report.save(tmp_path / "new" / "folder", paths)
    assert {file.name for file in written} == {"accuracy.json", "accuracy.csv", "accuracy_classes.csv", "accuracy.png"}
    assert sorted(f.name for f in (tmp_path / "new" / "folder").iterdir()) == sorted(f.name for f in written)
    stored = json.loads((tmp_path / "new" / "folder" / "accuracy.json").read_text())
    assert stored["metrics"] == report.metrics
    assert stored["confusion"] == report.confusion.tolist()
    rows = list(csv.DictReader((tmp_path / "new" / "folder" / "accuracy.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == paths
    assert sum(row["correct"] == "True" for row in rows) == round(report.metrics["top1"] * len(rows))
    from PIL import Image

    with Image.open(tmp_path / "new" / "folder" / "accuracy.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 5  # something is drawn

    text = _text(report.table())
    assert "[red]name[/red]" in text
    assert "top1" in text
    assert "more, in accuracy_classes.csv" in _text(report.table(classes=2))


def _text(table):
    from rich.console import Console

    with open("/dev/null", "w") as null:
        console = Console(width=120, record=True, file=null)
        console.print(table)
    return console.export_text()


def test_picture_of_many_classes(tmp_path):
    n = 120
    labels = torch.arange(n)
    x = images(torch.eye(n)[:, None])
    report = accuracy(
        Classifier(), batches(x, labels, size=40), [f"a class with a long name {i}" for i in range(n)], "cpu"
    )
    report.save(tmp_path)
    from PIL import Image

    with Image.open(tmp_path / "accuracy.png") as picture:
        assert 800 < picture.width < 3000


def test_by_accuracy_needs_a_classifier():
    subject = Subject(None, Identity(3), "image", CLASSES)
    with pytest.raises(UserError, match="--by"):
        EVALUATORS["accuracy"](subject, None, [])
    subject = Subject(Classifier(), Identity(3), "image", CLASSES)
    report = EVALUATORS["accuracy"](subject, None, batches(images(torch.eye(3)[:, None]), torch.arange(3)))
    assert report.metrics["top1"] == 1.0


def test_samples_without_a_label_are_left_out_and_bad_files_are_named():
    given = batches(images(torch.eye(3)[:, None]), torch.tensor([0, -1, 1]), size=3)
    given[0]["bad"] = [("x.mp4", "x.mp4: moov atom not found"), ("y.mp4", "y.mp4: empty")]
    report = accuracy(Classifier(), given, CLASSES, "cpu")
    assert report.metrics["samples"] == 2
    assert [row["index"] for row in report.predictions] == [0, 2]
    assert report.metrics["top1"] == 0.5
    assert report.as_dict()["bad"][0] == {"path": "x.mp4", "error": "x.mp4: moov atom not found"}
    assert "moov atom not found (and 1 more)" in _text(report.table())

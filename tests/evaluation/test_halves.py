"""What a network is shown at evaluation: other sizes, more views."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from media import numbered_frames, write_video
from torchvision.transforms import InterpolationMode

import unveil
from unveil.data import CenterCrop, Dataset, Manifest, ResizeShort
from unveil.errors import UserError
from unveil.evaluation.halves import framed, views


def test_sizes_are_changed_and_nothing_else():
    before = [ResizeShort(256, bicubic=True), CenterCrop(224)]
    after = framed(before, 288, 256)
    assert after[0].size == [288]
    assert after[0].interpolation is InterpolationMode.BICUBIC
    assert tuple(after[1].size) == (256, 256)
    assert before[0].size == [256]
    assert framed(before, None, None) == before
    assert after[1](after[0](torch.zeros(3, 300, 400, dtype=torch.uint8))).shape == (3, 256, 256)


@pytest.mark.parametrize(
    ("short", "crop", "words"),
    [(None, 288, "does not fit into a short side of 256"), (0, None, "must be positive"), (200, None, "does not fit")],
)
def test_sizes_that_cannot_be(short, crop, words):
    with pytest.raises(UserError, match=words):
        framed([ResizeShort(256), CenterCrop(224)], short, crop)
    with pytest.raises(UserError, match="no CenterCrop to change"):
        framed([ResizeShort(256)], None, 224)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    for number in range(4):
        path = folder / "data" / "ab"[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, numbered_frames(30, 48, 80, seed=number), fps=8)
    flags = {"size": "debug", "crop": 32, "frames": 8, "stride": 1, "schedule.batch": 4, "loader.batch": 4}
    how = {"loader.workers": 0, "max_steps": 2, "val_fraction": 0, "quiet": True, "device": "cpu"}
    return unveil.train("s3d", data=folder / "data", out=folder / "run", **flags, **how), folder / "data"


def test_views_are_averaged_after_the_softmax(run, tmp_path: Path):
    """10x3 is the mean of what 30 looks, taken through the library, say."""
    trained, data = run
    report = unveil.evaluate(trained, data=data, views="10x3", out=tmp_path, workers=0, quiet=True)
    settings = replace(trained.recipe.data, **views("10x3"))
    manifest = Manifest.scan([data], settings.signal.suffixes)
    dataset = Dataset(manifest, settings, trained.classes, training=False, seed=0)
    expected = []
    for row in range(len(manifest)):
        looks = dataset[row][0]["video"]
        assert looks.shape == (30, 3, 8, 32, 32)
        assert len({look.sum().item() for look in looks}) > 20
        with torch.no_grad():
            expected.append(trained.objective.logits({"video": looks}).softmax(1).mean(0).max().item())
    assert [row["index"] for row in report.predictions] == list(range(4))
    assert [row["probability"] for row in report.predictions] == pytest.approx(expected, abs=1e-5)


def test_larger_pictures_than_in_training(run, tmp_path: Path):
    trained, data = run
    seen = []
    hook = trained.objective.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-2:]))
    unveil.evaluate(trained, data=data, short=48, crop=48, views="1x3", out=tmp_path, workers=0, quiet=True)
    hook.remove()
    assert set(seen) == {(48, 48)}

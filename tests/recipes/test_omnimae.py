"""OmniMAE: images and clips through one network, with a ratio of masking each."""

import pytest
import torch

import kit
from unveil.recipes.omnimae import finetune, omnimae


def batch(frames: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(3, 3, frames, 64, 64, generator=generator)
    return {"video": video, "seed": torch.arange(3), "label": torch.arange(3)}


def test_an_image_and_a_clip_hide_as_many_as_asked() -> None:
    objective = omnimae(size="debug", crop=224, frames=16).objective
    for frames, places, hidden in ((2, 196, 176), (16, 1568, 1490)):
        x = torch.empty(2, 3, frames, 224, 224)
        mask = objective.masked({"video": x, "seed": torch.arange(2)})  # pyright: ignore[reportCallIssue]
        assert mask.masked.shape == (2, hidden)
        assert mask.visible.shape == (2, places - hidden)
    tubes = omnimae(size="debug", crop=224, frames=16, ratio=0.9, masking="tube").objective
    hidden = tubes.masked({"video": torch.empty(1, 3, 16, 224, 224), "seed": torch.arange(1)}).masked  # pyright: ignore[reportCallIssue]
    assert (hidden.view(8, -1) % 196).unique(dim=0).shape[0] == 1


def test_an_image_has_the_positions_of_a_clips_first_frames() -> None:
    encoder = omnimae(size="debug", crop=64, frames=8, patch=16).objective.towers["video"]
    clip = batch(8)["video"]
    alone, first = encoder(clip[:, :, :2], layer=1), encoder(clip)  # pyright: ignore[reportCallIssue]
    places = encoder.positions(alone.coords, alone.grid)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(places, encoder.positions(first.coords, first.grid)[:, :16])  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("frames", [2, 8])
def test_both_learn_and_are_drawn(frames: int) -> None:
    objective = omnimae(size="debug", crop=64, frames=8, ratio=0.9, image_ratio=0.75).objective
    given = batch(frames)
    loss = objective(given)["loss"]
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    drawn = objective.reconstruct(given)  # pyright: ignore[reportCallIssue]
    assert drawn.predicted.shape == given["video"].shape
    assert not torch.equal(drawn.predicted, drawn.input)


def test_one_classifier_answers_for_both() -> None:
    objective = kit.small(finetune, crop=64, frames=8).objective
    for frames in (2, 8):
        assert objective.logits(batch(frames)).shape == (3, kit.CLASSES)  # pyright: ignore[reportCallIssue]


def test_published_settings_of_each_kind() -> None:
    clips, images = kit.small(finetune), kit.small(finetune, settings="images")
    assert (clips.data.clips, clips.data.crops, clips.optimizer.layer_decay) == (5, 3, 0.75)
    assert (images.data.clips, images.data.crops, images.optimizer.weight_decay) == (1, 1, 1e-4)
    assert len(images.data.transform) == len(clips.data.transform) + 1  # mirrored

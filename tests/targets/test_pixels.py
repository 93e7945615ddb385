from typing import Any

import pytest
import torch

from unveil.targets import Drawable, Pixels, truncated_linspace
from unveil.tokens import Patchify

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PATCHIFY = Patchify(2, 4, 4, channels=3)
GRID = (2, 2, 2)
BATCH = {"video": torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
INDICES = torch.tensor([[0, 3, 7], [1, 2, 4]])


def test_plain_pixels_are_the_patches_asked_for() -> None:
    target = Pixels(PATCHIFY, "video")(BATCH, GRID, INDICES)
    patches = PATCHIFY(BATCH["video"]).x
    assert torch.equal(target, torch.stack([patches[0, [0, 3, 7]], patches[1, [1, 2, 4]]]))


def test_by_patch() -> None:
    target = Pixels(PATCHIFY, "video", normalize="patch")(BATCH, GRID, INDICES)
    assert target.mean(-1).abs().max() < 1e-5
    assert target.var(-1).flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-4)


def test_by_channel_after_undoing_the_normalisation() -> None:
    target = Pixels(PATCHIFY, "video", normalize="channel", mean=MEAN, std=STD)(BATCH, GRID, INDICES)
    colours = target.unflatten(-1, (-1, 3))
    assert colours.mean(-2).abs().max() < 1e-5
    assert colours.std(-2).flatten().tolist() == pytest.approx([1.0] * 18, abs=1e-3)
    plain = Pixels(PATCHIFY, "video", mean=MEAN, std=STD)(BATCH, GRID, INDICES)
    first = BATCH["video"][0, :, 0, 0, 0] * torch.tensor(STD) + torch.tensor(MEAN)
    assert plain[0, 0, :3].tolist() == pytest.approx(first.tolist())


def test_a_flat_patch_is_not_divided_by_zero() -> None:
    flat = {"video": torch.zeros_like(BATCH["video"])}
    for normalize in ("patch", "channel", "channel variance"):
        assert not Pixels(PATCHIFY, "video", normalize=normalize)(flat, GRID, INDICES).any()


def test_what_keeps_a_channel_from_zero_is_added_to_its_variance() -> None:
    plain = Pixels(PATCHIFY, "video")(BATCH, GRID, INDICES).unflatten(-1, (-1, 3))
    target = Pixels(PATCHIFY, "video", normalize="channel variance")(BATCH, GRID, INDICES).unflatten(-1, (-1, 3))
    var, mean = torch.var_mean(plain, dim=-2, keepdim=True)
    torch.testing.assert_close(target, (plain - mean) / (var + 1e-6).sqrt())
    faint = {"video": BATCH["video"] * 1e-3}  # where the two differ
    other = Pixels(PATCHIFY, "video", normalize="channel")(faint, GRID, INDICES)
    ours = Pixels(PATCHIFY, "video", normalize="channel variance")(faint, GRID, INDICES)
    assert (other / ours).mean() > 1.1


@pytest.mark.parametrize("faint", [1.0, 1e-5])
@pytest.mark.parametrize("normalize", ["channel", "channel variance"])
def test_undoing_the_normalisation_matters_only_next_to_epsilon(normalize, faint: float) -> None:
    batch = {"video": BATCH["video"] * faint}
    plain = Pixels(PATCHIFY, "video", mean=MEAN, std=STD)(batch, GRID, INDICES).unflatten(-1, (-1, 3)).double()
    var, mean = torch.var_mean(plain, dim=-2, keepdim=True)
    wanted = (plain - mean) / (var.sqrt() + 1e-6 if normalize == "channel" else (var + 1e-6).sqrt())
    target = Pixels(PATCHIFY, "video", normalize=normalize, mean=MEAN, std=STD)(batch, GRID, INDICES)
    torch.testing.assert_close(target.unflatten(-1, (-1, 3)).double(), wanted, atol=0.02 if faint < 1 else 1e-5, rtol=0)


@pytest.mark.parametrize("normalize", [None, "patch", "channel", "channel variance"])
@pytest.mark.parametrize("statistics", [{}, {"mean": MEAN, "std": STD}])
def test_a_perfect_prediction_is_drawn_as_the_signal(normalize, statistics: dict[str, Any]) -> None:
    target = Pixels(PATCHIFY, "video", normalize=normalize, **statistics)
    assert isinstance(target, Drawable)
    drawn = target.picture(target(BATCH, GRID, INDICES), BATCH, GRID, INDICES)
    true = PATCHIFY(BATCH["video"]).gather(INDICES).x
    torch.testing.assert_close(drawn, true, rtol=1e-4, atol=1e-4)


def test_some_frames_of_every_tubelet() -> None:
    assert truncated_linspace(16, 8) == [0, 2, 4, 6, 8, 10, 12, 15]
    one = Pixels(Patchify(1, 4, 4, channels=3), "video", frames=truncated_linspace)
    assert torch.equal(one.signal(BATCH, GRID), BATCH["video"][:, :, [0, 3]])
    assert one(BATCH, GRID, INDICES).shape == (2, 3, 48)
    all_of_them = Pixels(PATCHIFY, "video", frames=truncated_linspace)
    assert torch.equal(all_of_them.signal(BATCH, GRID), BATCH["video"])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="both mean and std"):
        Pixels(PATCHIFY, "video", mean=MEAN)
    with pytest.raises(ValueError, match="was asked about the grid"):
        Pixels(PATCHIFY, "video")(BATCH, (4, 2, 2), INDICES)
    assert "normalize='patch'" in repr(Pixels(PATCHIFY, "video", normalize="patch"))

import pytest
import torch

from unveil.encoders import DalleEncoder, VisualTokenizer
from unveil.masking import Random, draw
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD
from unveil.targets import Codes, Drawable

GRID = (4, 6)


def codes(mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Codes:
    torch.manual_seed(0)
    return Codes(VisualTokenizer(DalleEncoder("debug"), 50), "image", mean, std, (0.5,) * 3, (0.25,) * 3)


def batch(side: int = 16) -> dict[str, torch.Tensor]:
    shape = (3, 3, GRID[0] * side, GRID[1] * side)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return {"image": (pixels - mean) / std, "pixels": pixels}


def test_the_look_is_the_image_made_small_in_the_tokenizers_colours() -> None:
    target, data = codes(), batch()
    look = target.look(data, GRID)
    assert look.shape == (3, 3, 32, 48)
    small = torch.nn.functional.interpolate(data["pixels"], size=(32, 48), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(look, (small - 0.5) / 0.25, rtol=1e-4, atol=1e-4)
    assert look.min() >= -2
    assert look.max() <= 2


def test_patches_of_the_tokenizers_own_stride_are_looked_at_as_they_are() -> None:
    data = batch(side=8)
    torch.testing.assert_close(codes().look(data, GRID), (data["pixels"] - 0.5) / 0.25, rtol=1e-4, atol=1e-4)


def test_codes_of_the_places_asked_for() -> None:
    target, data = codes(), batch()
    masked = draw(Random(0.5), GRID, torch.tensor([1, 2, 3])).masked
    found = target(data, GRID, masked)
    whole = target.tokenizer.codes(target.look(data, GRID))
    assert found.shape == masked.shape
    assert found.dtype == torch.int64
    assert torch.equal(found, whole.gather(1, masked))
    assert len(whole.unique()) > 1


def test_a_hidden_patch_has_the_code_of_its_own_place() -> None:
    """Where the image changes, the code does; a place far away keeps its own."""
    target, data = codes(), batch()
    everywhere = torch.arange(24).expand(3, -1)
    before = target(data, GRID, everywhere)
    data["image"][:, :, :16, :16] = data["image"][:, :, :16, :16] * 0 + 2
    changed = (target(data, GRID, everywhere) != before).view(3, *GRID)
    assert changed[:, :2, :2].any()
    assert not changed[:, :, 5].any()


def test_it_does_not_learn() -> None:
    target, data = codes(), batch()
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert not target.train().training
    assert not target.tokenizer.training
    data["image"].requires_grad_(True)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    target(data, GRID, torch.zeros(3, 1, dtype=torch.int64))
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_half_precision_changes_no_code() -> None:
    target, data = codes(), batch()
    everywhere = torch.arange(24).expand(3, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = target(data, GRID, everywhere)
    assert torch.equal(half, target(data, GRID, everywhere))


def test_codes_are_no_pictures() -> None:
    assert not isinstance(codes(), Drawable)


def test_the_weights_are_saved_and_nothing_else() -> None:
    assert all(name.startswith("tokenizer.") for name in codes().state_dict())
    with pytest.raises(RuntimeError):
        codes().load_state_dict({})

"""MaskFeat's four networks: a plain and a multiscale transformer, on images and on clips."""

from typing import Any, Literal

import pytest
import torch

import kit
from unveil.encoders import MViT, ViT
from unveil.errors import UserError
from unveil.fitting import fit
from unveil.masking import Block, Cube
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Recipe
from unveil.recipes.maskfeat import finetune, maskfeat

SIGNALS = {"image": {}, "video": {"frames": 4}}
KINDS: list[Literal["vit", "mvitv2"]] = ["vit", "mvitv2"]
every_network = pytest.mark.parametrize("kind", KINDS)
every_signal = pytest.mark.parametrize("key", SIGNALS)


def masked(kind: Any = None, key: str = "image", **flags: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    objective = maskfeat(
        **{"size": "debug", "encoder": kind, "crop": 32, "patch": 8, **SIGNALS[key], **flags}
    ).objective
    assert isinstance(objective, MaskedAutoencoder)
    return objective


def classifier(kind: Any = None, key: str = "image", **flags: Any) -> Supervised:
    torch.manual_seed(1)
    given = {"size": "debug", "encoder": kind, "crop": 32, "patch": 8, "num_classes": 5, **SIGNALS[key], **flags}
    objective = finetune(**given).objective
    assert isinstance(objective, Supervised)
    return objective


def test_images_go_to_vit_and_clips_to_mvit() -> None:
    image, clip = masked(key="image"), masked(key="video")
    assert isinstance(image.encoder, ViT)
    assert isinstance(clip.encoder, MViT)
    assert (image.key, clip.key) == ("image", "video")
    assert (image.masker, clip.masker) == (Block(0.4), Cube(0.4))
    with torch.device("meta"):
        assert maskfeat().objective.encoder.width == 768  # pyright: ignore[reportAttributeAccessIssue]
        assert maskfeat(frames=16).objective.encoder.width == 768  # pyright: ignore[reportAttributeAccessIssue]
        assert maskfeat(size="L").objective.encoder.width == 1024  # pyright: ignore[reportAttributeAccessIssue]
        assert maskfeat(size="L_16x4").objective.encoder.width == 1152  # pyright: ignore[reportAttributeAccessIssue]


@every_network
@every_signal
def test_the_properties_of_every_recipe(kind: Any, key: str) -> None:
    """Those of the kit, which itself sees one of the four."""

    def pretraining(size: str = "debug", crop: int = 32, patch: int = 8) -> Recipe:
        return maskfeat(size, kind, crop=crop, patch=patch, **SIGNALS[key])

    def tuning(size: str = "debug", crop: int = 32, patch: int = 8, num_classes: int = 5) -> Recipe:
        return finetune(size, kind, num_classes, crop=crop, patch=patch, **SIGNALS[key])

    for recipe in (pretraining, tuning):
        kit.check_gradients(recipe)
        kit.check_towers(recipe)
        kit.check_seed(recipe)
        kit.check_checkpointing(recipe)
    kit.check_masks(pretraining)
    kit.check_learns(pretraining)


@every_network
@every_signal
def test_a_classifier_starts_from_what_was_pre_trained(kind: Any, key: str) -> None:
    before, after = masked(kind, key), classifier(kind, key)
    report = fit(after, before.state_dict())
    assert not report.replaced
    assert set(report.fresh) == {
        f"{part}.{kind}" for part in ("encoder.fc_norm", "head.linear") for kind in ("weight", "bias")
    }
    assert {name.rpartition(".")[0] for name in report.unused} <= {"encoder", "encoder.norm", "decoder.head"}


def test_what_is_hidden_is_not_seen() -> None:
    """Two images that differ under the mask alone get one prediction, and different targets."""
    for key in SIGNALS:
        objective = masked("vit", key).eval()
        batch = kit.batch_for(objective)
        mask = objective.masked(batch)
        cells = {"image": (8, 8), "video": (2, 8, 8)}[key]
        hidden = torch.zeros(kit.BATCH, torch.Size(objective.encoder.mask_grid(batch[key])).numel())
        hidden.scatter_(1, mask.masked, 1.0)
        pixels = hidden.view(kit.BATCH, 1, *objective.encoder.mask_grid(batch[key]))
        for axis, side in enumerate(cells, start=2):
            pixels = pixels.repeat_interleave(side, axis)
        other = batch | {key: torch.where(pixels.bool(), torch.randn_like(batch[key]), batch[key])}
        (first, grid, indices), (second, _, _) = (objective.predict(found, mask) for found in (batch, other))
        assert torch.equal(first, second)
        assert not torch.equal(objective.target(batch, grid, indices), objective.target(other, grid, indices))


def test_three_grids() -> None:
    """The published: masks of 8 × 7 × 7 are hidden on 8 × 56 × 56 and predicted on 8 × 14 × 14, with 108 values each."""
    with torch.device("meta"):
        objective: Any = maskfeat(frames=16).objective
        x = torch.empty(1, 3, 16, 224, 224)
        assert objective.encoder.mask_grid(x) == (8, 7, 7)
        tokens = objective.encoder(x)
    assert objective.encoder.stem.grid(x.shape) == (8, 56, 56)
    assert tokens.grid == (8, 14, 14)
    assert objective.decoder.head.out_features == objective.target.width == 108
    assert len(Cube()((8, 7, 7), torch.Generator()).masked) == 157
    assert classifier("mvitv2", "video").encoder(torch.zeros(1, 3, 4, 32, 32)).grid == (2, 4, 4)


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_where_a_multiscale_transformer_stops_shrinking(patch: int) -> None:
    objective = masked("mvitv2", "image", size="nano", crop=128, patch=patch)
    batch = kit.batch_for(objective)
    batch["image"] = torch.randn(kit.BATCH, 3, 128, 128)
    prediction, grid, indices = objective.predict(batch, objective.masked(batch))
    assert grid == (128 // patch, 128 // patch)
    assert prediction.shape == (kit.BATCH, indices.shape[1], 27 * (patch // 8) ** 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"patch": 12}, "--cell 8 does not divide a --patch of 12"),
        ({"ratio": 0.01}, "--ratio 0.01 hides nothing of a grid of 4 × 4"),
        ({"encoder": "mvitv2", "crop": 40}, "choose a --crop that is a multiple of 16"),
        ({"encoder": "mvitv2", "patch": 64}, "--patch 64: MViTv2 of size debug can predict 4, 8 pixels"),
    ],
)
def test_flags_that_cannot_be(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        masked(**{"kind": flags.pop("encoder", None), **flags})


def test_reconstructions_can_be_looked_at() -> None:
    for kind in KINDS:
        objective = masked(kind, "video").eval()
        batch = kit.batch_for(objective)
        seen = objective.reconstruct(batch)
        assert torch.equal(seen.input, batch["video"][:, :, ::2])
        assert seen.wanted is not None
        hidden = (seen.masked == 0).all(1, keepdim=True).expand_as(seen.input)
        assert 0.3 < hidden.float().mean() < 0.7
        for drawn in (seen.predicted, seen.wanted):
            assert torch.equal(drawn[~hidden], seen.input[~hidden])
            assert not torch.isclose(drawn[hidden], seen.input[hidden]).any(0).all()
        assert not torch.equal(seen.predicted, seen.wanted)
        other = batch | {"video": -2 * batch["video"] + 1}  # the same edges, of other colours
        again = objective.reconstruct(other, objective.masked(batch)).wanted
        assert again is not None
        torch.testing.assert_close(again[hidden], seen.wanted[hidden], rtol=1e-3, atol=1e-3)

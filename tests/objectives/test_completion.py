"""Completing clouds of points."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import kit
from unveil import recipes
from unveil.errors import UserError
from unveil.losses import chamfer
from unveil.recipes.mae3d import finetune, mae3d
from unveil.tokens import farthest

small = partial(kit.small, mae3d)


def test_the_loss_is_that_of_centres_and_points():
    objective = small().objective.eval()
    batch = kit.batch_for(objective)
    mask = objective.masked(batch)
    answer = objective(batch, mask)
    found, tokens = objective.complete(batch, mask)
    points = batch["points"].transpose(1, 2)
    centres = torch.stack([cloud[chosen] for cloud, chosen in zip(points, farthest(points, 5), strict=True)])
    assert torch.equal(tokens.places, centres)
    expected = chamfer(found.centres, centres, "sum") + 0.1 * chamfer(found.points, points, "sum")
    torch.testing.assert_close(answer["loss"], expected)
    assert (found.centres.shape, found.points.shape) == ((kit.BATCH, 5, 3), (kit.BATCH, 80, 3))
    torch.testing.assert_close(answer["loss"], answer["loss_centres"] + 0.1 * answer["loss_points"])


def test_what_is_hidden_is_not_seen():
    """Points of hidden groups alone do not change what is predicted, but for the places of their centres."""
    objective = small().objective.eval()
    batch = kit.batch_for(objective)
    mask = objective.masked(batch)
    tokens = objective.encoder.patchify(batch["points"])
    seen = tokens.gather(mask.visible).x.unflatten(2, (-1, 3)).flatten(1, 2)
    before = objective.complete(batch, mask)[0]
    moved = batch["points"].clone()
    changed = 0
    for sample in range(kit.BATCH):
        points = moved[sample].T
        kept = (points[:, None] == seen[sample]).all(-1).any(1) | (points[:, None] == tokens.coords[sample]).all(
            -1
        ).any(1)
        moved[sample, :, ~kept] += 1e-5
        changed += int((~kept).sum())
    assert changed > 0
    again = objective.encoder.patchify(moved)
    assert torch.equal(again.coords, tokens.coords), "the centres moved: choose another seed"
    after = objective.complete(batch | {"points": moved}, mask)[0]
    assert torch.equal(before.points, after.points)


def test_masking():
    batch = kit.batch_for(small().objective)
    for kind in ("block", "random"):
        mask = small(masking=kind).objective.masked(batch)
        assert (mask.visible.shape, mask.masked.shape) == ((kit.BATCH, 5 - len(mask.masked[0])), mask.masked.shape)
        assert mask.masked.shape[1] in (3, 4)


def test_pictures():
    objective = small().objective.eval()
    batch = kit.batch_for(objective)
    mask = objective.masked(batch)
    seen = objective.reconstruct(batch, mask)
    assert torch.equal(seen.input, batch["points"])
    assert seen.masked.shape == (kit.BATCH, 3, 16 * mask.visible.shape[1])
    assert seen.predicted.shape == (kit.BATCH, 3, 80)
    assert objective.drawable
    for cloud, some in zip(seen.input, seen.masked, strict=True):
        assert (some.T[:, None] == cloud.T).all(-1).any(1).all()


def test_errors_name_the_flag():
    with pytest.raises(UserError, match="--group 15: a group is folded of a square sheet"):
        mae3d("debug", points=60, group=15)
    with pytest.raises(UserError, match="choose a larger --points"):
        mae3d("debug", points=60, group=64)
    with pytest.raises(UserError, match="none would be hidden"):
        mae3d("debug", points=60, group=49, ratio=0.5)


def test_the_embedding_is_what_fine_tuning_begins_with():
    pretrained, classifier = small().objective, kit.small(finetune).objective
    ours, theirs = pretrained.encoder.state_dict(), classifier.encoder.state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {
        name: value.shape for name, value in ours.items() if name.startswith("embed.")
    }


def test_positions_are_added_before_every_block():
    encoder = small().objective.encoder.eval()
    x = kit.batch_for(small().objective)["points"]
    tokens = encoder.patchify(x)
    places = torch.cat(
        [encoder.class_position.expand(len(x), -1, -1), encoder.positions(tokens.coords, tokens.grid)], dim=1
    )
    sequence = torch.cat([encoder.class_token.expand(len(x), -1, -1), encoder.embed(tokens.x)], dim=1)
    for block in encoder.blocks:
        sequence = block(sequence + places)
    assert torch.equal(encoder(x).sequence(), sequence)
    assert recipes.find("mae3d") is mae3d

"""A state dict into a network of other shapes, and what is said of it."""

import torch

import unveil
from unveil.fitting import fit

TINY = {"size": "debug", "crop": 32, "patch": 8}


def test_every_tensor_is_accounted_for_once() -> None:
    source = unveil.build("vit", **TINY, num_classes=3).objective.state_dict()
    state = {name: value for name, value in source.items() if name != "encoder.norm.bias"} | {"neck": torch.ones(2)}
    given = {name: value.clone() for name, value in state.items()}
    target = unveil.build("vit", **{**TINY, "crop": 48, "patch": 16}, num_classes=4).objective
    report = fit(target, state, "a file")
    assert report.unused == ["neck"]
    assert report.fresh == ["encoder.norm.bias"]
    assert report.replaced == {"head.linear.weight": ([3, 32], [4, 32]), "head.linear.bias": ([3], [4])}
    assert report.resized == {
        "encoder.embed.weight": ([32, 192], [32, 768]),
        "encoder.positions.table": ([16, 32], [9, 32]),
    }
    everything = [*report.loaded, *report.resized, *report.replaced, *report.unused, "encoder.positions.native"]
    assert sorted(everything) == sorted(state)
    assert all(torch.equal(state[name], given[name]) for name in state), "what was given has been changed"
    for name in report.loaded:
        assert torch.equal(target.state_dict()[name], state[name])
    text = "\n".join(report.sentences())
    assert "started from a file: " in text
    assert "begun anew: head.linear.weight (3 × 32 → 4 × 32)" in text
    assert "new, as initialised: encoder.norm.bias" in text
    assert "not used here: neck" in text


def test_patches_of_no_known_shape_are_begun_anew() -> None:
    target = unveil.build("vit", **TINY, num_classes=3).objective
    state = target.state_dict() | {"encoder.embed.weight": torch.zeros(32, 3 * 24)}  # 24 pixels make no square
    assert list(fit(target, state).replaced) == ["encoder.embed.weight"]

"""Audiovisual MAE: parameters by arithmetic, published settings, and fine-tuning of one stream or both with the pre-trained names."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import kit
from unveil.data import Audiovisual, Sound, Video
from unveil.encoders import Fusion, shown
from unveil.errors import UserError
from unveil.fitting import fit
from unveil.recipes import avmae, mavil


def linear(inside: int, outside: int) -> int:
    return inside * outside + outside


def block(width: int, hidden: int) -> int:
    """Queries, keys, values, projection; two layers of a perceptron; two norms."""
    return linear(width, 3 * width) + linear(width, width) + linear(width, hidden) + linear(hidden, width) + 4 * width


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("size", "width", "depth", "decoder", "heads"), [("B", 768, 12, 384, 6), ("L", 1024, 24, 512, 8)]
)
def test_parameters_of_the_release(size: str, width: int, depth: int, decoder: int, heads: int) -> None:
    """What scenic's configuration builds: separate encoders less two layers, two joint ones, each with a norm at its end; an
    embedding, a mask token and a last layer for each stream around the blocks and the norm of one decoder."""
    with torch.device("meta"):
        objective = avmae.avmae(size=size).objective
    patches = {"video": 2 * 16 * 16 * 3, "audio": 16 * 16}
    encoders = sum(
        linear(values, width) + (depth - 2) * block(width, 4 * width) + 2 * width for values in patches.values()
    )
    joint = 2 * block(width, 4 * width) + 2 * width
    ends = sum(linear(width, decoder) + decoder + linear(decoder, values) for values in patches.values())
    blocks = 4 * block(decoder, 4 * decoder) + 2 * decoder
    assert count(objective) == encoders + joint + ends + blocks
    assert objective.decoder.blocks[0].attn.heads == heads  # pyright: ignore
    with torch.device("meta"):
        told = avmae.avmae(size=size, stream_embedding=True).objective
    assert count(told) == count(objective) + 2 * decoder


def test_published_settings() -> None:
    with torch.device("meta"):
        recipe = avmae.avmae()
    objective: Any = recipe.objective
    assert isinstance(recipe.data.signal, Audiovisual)
    assert recipe.data.signal.video.clip.frames == 16
    assert {key: masker.ratio for key, masker in objective.maskers.items()} == {"video": 0.9, "audio": 0.7}
    assert objective.weights == {"video": 0.5, "audio": 0.5}
    assert len(objective.encoder.blocks) == 2
    stems = objective.encoder.stems
    assert stems["video"].mask_grid(torch.empty(1, 3, 16, 224, 224, device="meta")) == (8, 14, 14)
    assert stems["audio"].mask_grid(torch.empty(1, 1, 160000, device="meta")) == (63, 8)


@pytest.mark.parametrize("module", [avmae, mavil])
@pytest.mark.parametrize(("use", "signal"), [("both", Audiovisual), ("video", Video), ("audio", Sound)])
def test_fine_tuning_of_what_was_pre_trained(module: Any, use: str, signal: type) -> None:
    """Every tensor of the encoders that are used is found by its name; only the head and the norm before it are new."""
    pretraining = getattr(module, module.__name__.rpartition(".")[2])
    before = kit.small(pretraining)
    after = kit.small(module.finetune, use=use, seed=1)
    assert isinstance(after.data.signal, signal)
    encoder = after.objective.encoder
    assert isinstance(encoder, Fusion)
    assert encoder.streams == (("video", "audio") if use == "both" else (use,))
    report = fit(after.objective, before.objective.state_dict())
    assert not report.replaced
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in report.fresh} == {
        "encoder.fc_norm",
        "head.linear",
    }
    batch = kit.batch_for(before.objective)
    tower = before.objective.eval().towers[use]
    plain: Any = after.objective.eval().encoder
    plain.norm, theirs = getattr(before.objective.encoder, "norm", None), tower(shown(tower, batch, use))
    if module is mavil and use != "both":
        plain.norm = None  # a stream alone is its own encoder there
    torch.testing.assert_close(plain(batch).x, theirs.x)


@pytest.mark.parametrize("module", [avmae, mavil])
def test_a_use_that_there_is_not(module: Any) -> None:
    with pytest.raises((UserError, ValueError), match=r"--use smell|one width"):
        kit.small(module.finetune, use="smell")


@pytest.mark.parametrize("use", ["video", "audio"])
@pytest.mark.parametrize("recipe", [avmae.finetune, mavil.finetune])
def test_one_stream_has_the_properties_of_all(recipe: Any, use: str, tmp_path: Any) -> None:
    def alone(**flags: Any) -> Any:
        return recipe(
            use=use, **{name: value for name, value in kit.flags_of(recipe).items() if name not in flags} | flags
        )

    alone.__signature__ = inspect.signature(recipe)  # type: ignore[attr-defined]
    for check in (kit.check_gradients, kit.check_towers):
        check(alone)
    kit.check_state(alone, tmp_path)


def test_a_waveform_or_its_filter_bank() -> None:
    """An encoder takes either: the objective computes the filter bank once for the encoder and the target."""
    objective: Any = kit.small(avmae.avmae).objective.eval()
    batch = kit.batch_for(objective)
    ready = objective.prepared(batch)
    assert ready["audio"].ndim == 4
    assert torch.equal(ready["video"], batch["video"])
    assert torch.equal(objective(batch)["loss"], objective(ready)["loss"])

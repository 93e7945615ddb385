"""Audio-MAE: waveforms through a filter bank into a masked autoencoder, and what is left out of them in fine-tuning."""

from typing import Any

import pytest
import torch

import kit
from unveil import weights
from unveil.errors import UserError
from unveil.layers import seed_dropout
from unveil.recipes.audiomae import audiomae, finetune
from unveil.tokens import FilterBank


def batch(length: int = 5120, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(4, 1, length, generator=generator)
    return {"audio": x, "seed": torch.arange(4) + 7, "label": torch.arange(4)}


def objective(recipe: Any = audiomae, **flags: Any) -> Any:
    return kit.small(recipe, **flags).objective


def test_the_filter_bank_is_computed_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = objective(), []
    forward = FilterBank.forward
    monkeypatch.setattr(FilterBank, "forward", lambda self, x: calls.append(x.shape) or forward(self, x))
    model(batch())["loss"].backward()
    assert len(calls) == 1
    model.reconstruct(batch())
    assert len(calls) == 2


def test_a_waveform_and_its_filter_bank_are_the_same_step() -> None:
    model, given = objective(), batch()
    made = given | {"audio": model.encoder.prepared(given["audio"])}
    assert torch.equal(model(given)["loss"], model(made)["loss"])
    assert torch.equal(model.masked(given).masked, model.masked(made).masked)


@pytest.mark.parametrize("decoder", ["window", "global"])
def test_reconstructions_are_filter_banks(decoder: str) -> None:
    model, given = objective(decoder=decoder, normalize=None).eval(), batch()
    drawn = model.reconstruct(given)
    bank = model.encoder.prepared(given["audio"])
    assert torch.equal(drawn.input, bank)
    mask = model.masked(given)
    patches, masked, predicted = (model.target.patchify(x).x for x in (drawn.input, drawn.masked, drawn.predicted))
    seen = mask.visible[..., None].expand(-1, -1, patches.shape[-1])
    hidden = mask.masked[..., None].expand(-1, -1, patches.shape[-1])
    assert torch.equal(predicted.gather(1, seen), patches.gather(1, seen))
    assert not masked.gather(1, hidden).any()
    torch.testing.assert_close(predicted.gather(1, hidden), model.predict(model.prepared(given), mask)[0])


@pytest.mark.parametrize("decoder", ["window", "global"])
@pytest.mark.parametrize("length", [100, 1600, 7000, 12345])
def test_any_duration(decoder: str, length: int) -> None:
    model = objective(decoder=decoder)
    answer = model(batch(length))
    answer["loss"].backward()
    assert answer["loss"].isfinite()


def test_structured_masks_hide_stretches_and_bands() -> None:
    model = objective(masking="structured", time_ratio=0.5, frequency_ratio=0.25)
    mask = model.masked(batch())
    hidden = torch.zeros(4, 16, dtype=torch.bool).scatter(1, mask.masked, True).unflatten(1, (4, 4))
    assert (hidden.all(2).sum(1) == 2).all()
    assert (hidden.all(1).sum(1) == 1).all()
    assert mask.visible.shape == (4, 2 * 3)


def test_fine_tuning_leaves_out_in_training_alone() -> None:
    """And by each sample's own seed: neighbours change nothing."""
    model, given = objective(finetune, drop_path=0.0), batch()
    model.eval()
    assert torch.equal(model(given)["loss"], model(given)["loss"])
    whole = model.logits(given)
    model.train()
    seen: list[int] = []
    model.encoder.blocks[0].register_forward_hook(lambda module, given, result: seen.append(result.shape[1]))
    seed_dropout(model, given["seed"])
    loss = model(given)["loss"]
    assert seen == [1 + 3 * 3]
    parts = []
    for i in (0, 2):
        part = {key: value[i : i + 2] for key, value in given.items()}
        seed_dropout(model, part["seed"])
        parts.append(model(part)["loss"])
    torch.testing.assert_close(torch.stack(parts).mean(), loss)
    assert not torch.allclose(loss, torch.nn.functional.cross_entropy(whole, given["label"]), rtol=1e-6)


def test_blotting_and_dropping_can_be_turned_off() -> None:
    model, given = (
        objective(finetune, drop_time=0.0, drop_frequency=0.0, blot_frames=0, blot_bins=0, drop_path=0.0),
        batch(),
    )
    assert model.masker is None
    assert torch.equal(model.train()(given)["loss"], model.eval()(given)["loss"])


def test_published_settings() -> None:
    large, small = finetune("debug"), finetune("debug", settings="20K")
    assert (large.schedule.batch, large.optimizer.lr, small.schedule.epochs) == (256, 2e-4, 60)
    augment: Any = large.objective.encoder.patchify.augment  # pyright: ignore
    assert (augment.time, augment.frequency) == (192, 48)
    assert kit.small(finetune).objective.encoder.patchify.augment.time == 6  # pyright: ignore


def as_published(model: Any) -> dict[str, torch.Tensor]:
    """A state dict of ours under the release's names, its tables with a row for the class token."""
    found = {}
    for name, value in model.state_dict().items():
        name = (
            name.removeprefix("encoder.")
            .replace("decoder.blocks", "decoder_blocks")
            .replace(".bias.mlp.", ".attn.meta_mlp.")
        )
        name = name.replace("head.linear", "head").replace("decoder.mask_token", "mask_token")
        for part in ("embed", "norm"):
            name = name.replace(f"decoder.{part}.", f"decoder_{part}.")
        name = name.replace("decoder.head.", "decoder_pred.").replace("class_token", "cls_token")
        if name.endswith("positions.table"):
            name = "decoder_pos_embed" if name.startswith("decoder") else "pos_embed"
            value = torch.cat([torch.zeros(1, 1, value.shape[1]), value[None]], dim=1)
        elif name == "embed.weight":
            name, value = "patch_embed.proj.weight", value.unflatten(1, (1, 8, 8))
        elif name == "embed.bias":
            name = "patch_embed.proj.bias"
        if not name.endswith("native"):
            found[name] = value
    return found


@pytest.mark.parametrize("kind", ["window", "global", "finetune"])
def test_a_published_checkpoint_answers_alike(kind: str) -> None:
    recipe, flags = (finetune, {}) if kind == "finetune" else (audiomae, {"decoder": kind})
    ours = objective(recipe, positions="transposed", **flags)
    hints = {"bins": 32, "num_heads": 2} | ({"decoder_num_heads": 2} if kind == "global" else {})
    theirs: Any = weights.load("audiomae", as_published(ours), **hints).objective
    given = batch()
    assert torch.equal(theirs.eval()(given)["loss"], ours.eval()(given)["loss"])
    assert theirs.encoder.positions.kind == "transposed"


def test_a_checkpoint_of_another_duration_gets_positions_of_its_own() -> None:
    ours = objective(finetune, positions="transposed")
    with pytest.warns(UserWarning, match=r"positions\.table"):
        theirs: Any = weights.load("audiomae", as_published(ours), bins=32, num_heads=2, seconds=0.64).objective
    assert torch.equal(
        theirs.encoder.positions.table,
        objective(finetune, positions="transposed", seconds=0.64).encoder.positions.table,
    )


def test_foreign_checkpoints_are_refused() -> None:
    state = as_published(objective(finetune, positions="transposed"))
    assert "audiomae" in [
        name for name in weights.families() if weights._fits(name, state | {"pos_embed": torch.zeros(1, 129, 32)})
    ]
    with pytest.raises(UserError, match="--bins"):
        weights.convert("audiomae", state, bins=40)
    with pytest.raises(UserError, match="3 channels"):
        weights.convert("audiomae", state | {"patch_embed.proj.weight": torch.zeros(32, 3, 8, 8)})


@pytest.mark.parametrize(("flags", "words"), [({"bins": 40}, "--bins 40"), ({"rate": 60}, "--rate 60")])
def test_flags_that_cannot_be(flags: dict[str, int], words: str) -> None:
    for recipe in (audiomae, finetune):
        with pytest.raises(UserError, match=words):
            recipe("debug", seconds=1.0, **flags)

"""The published implementations' numbers, reproduced through the name maps of `unveil.weights`."""

from typing import Any, cast

import pytest
import torch
from reference import agree, fill, inputs_of, read, state_of
from torch import Tensor

from unveil import weights
from unveil.masking import Mask
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.tokens import Patchify, Tokens, unravel

# Hints: what the shapes of a tiny configuration do not tell.
PRETRAINED: dict[str, dict[str, Any]] = {
    "mae-pretrain-norm": {"crop": 32},
    "mae-pretrain-raw": {"crop": 32, "normalize": None},
    "mae_st-pretrain-sep-norm": {},
    "mae_st-pretrain-joint-raw": {"frames": 8, "crop": 32, "normalize": None},
    "mae_st-pretrain-nocls": {},
    "videomae-pretrain-norm": {"crop": 32},
    "videomae-pretrain-raw": {"crop": 32, "normalize": None},
    "videomae-pretrain-mask90": {"crop": 32},
}
FINETUNED: dict[str, dict[str, Any]] = {
    "mae-finetune-gap": {},
    "mae-finetune-cls": {},
    "mae_st-finetune": {},
    "videomae-finetune": {"frames": 8, "crop": 32},
}


FROZEN = [0.194383904337883, -0.013153614476323128]


def load(name: str, hints: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    golden = read(name)
    if "decoder_num_heads" in golden["constructor"] and not name.startswith("videomae"):
        hints = hints | {"decoder_num_heads": golden["constructor"]["decoder_num_heads"]}
    heads = golden["constructor"].get("num_heads") or golden["constructor"]["encoder_num_heads"]
    recipe = weights.load(name.split("-")[0], state_of(golden), num_heads=heads, **hints)
    return golden, recipe.objective.eval()


def random_mask(noise: Tensor, ratio: float) -> tuple[Mask, Tensor]:
    """The mask of MAE and MAE-ST, and the order in which the reference keeps the visible tokens."""
    order = noise.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return Mask(order[:, :keep].sort().values, order[:, keep:].sort().values), order[:, :keep].argsort().argsort()


def tube_mask(noise: Tensor, ratio: float, frames: int) -> tuple[Mask, Tensor]:
    """The mask of VideoMAE, whose visible tokens stay in order."""
    places = noise.shape[1]
    order = noise.argsort(dim=1)
    keep = places - int(ratio * places)
    step = torch.arange(frames)[:, None] * places
    visible, masked = ((part.sort().values[:, None] + step).flatten(1) for part in order.tensor_split([keep], dim=1))
    return Mask(visible, masked), torch.arange(visible.shape[1]).expand_as(visible)


def convolution(gradient: Tensor, shape: list[int]) -> Tensor:
    """Our patch embedding [D, P] in the layout of a convolution's weight [D, C, *S]."""
    return gradient.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


@pytest.mark.parametrize("name", PRETRAINED)
def test_pretraining(name: str) -> None:
    golden, objective = load(name, PRETRAINED[name])
    assert isinstance(objective, MaskedAutoencoder)
    inputs, noise = inputs_of(golden), golden["float32_vs_float64"]
    constructor = golden["constructor"]
    if name.startswith("videomae"):
        mask, rank = tube_mask(inputs["noise"], constructor["mask_ratio"], 8)
    else:
        mask, rank = random_mask(inputs["noise"], constructor["forward.mask_ratio"])
    batch = {objective.key: inputs[objective.key]}

    loss = objective(batch, mask=mask)["loss"]
    loss.backward()
    agree(loss, golden["outputs"]["loss"], noise["loss"])

    tokens = cast(Tokens, objective.encoder(batch[objective.key], mask))
    latent = tokens.x.gather(1, rank[..., None].expand_as(tokens.x))
    if name.startswith("mae-"):
        latent = tokens._replace(x=latent).sequence()
    agree(latent, golden["outputs"]["latent"], noise["latent"])

    grid = tokens.grid
    predicted = objective.decoder(tokens, unravel(mask.masked, grid))
    if not name.startswith("videomae"):
        # The reference predicts the visible places too, from their own features; those numbers are of no use.
        whole = predicted.new_zeros(golden["outputs"]["pred"]["shape"])
        where = mask.masked[..., None].expand_as(predicted)
        agree(
            whole.scatter(1, where, predicted),
            golden["outputs"]["pred"],
            noise["pred"],
            torch.zeros_like(whole, dtype=torch.bool).scatter(1, where, True),
        )
    else:
        agree(predicted, golden["outputs"]["pred"], noise["pred"])

    gradient = objective.encoder.get_parameter("embed.weight").grad
    assert gradient is not None
    agree(convolution(gradient, golden["gradient"]["shape"]), golden["gradient"], noise["gradient"])


@pytest.mark.parametrize("name", FINETUNED)
def test_finetuned(name: str) -> None:
    golden, objective = load(name, FINETUNED[name])
    assert isinstance(objective, Supervised)
    inputs, noise = inputs_of(golden), golden["float32_vs_float64"]
    batch = {objective.key: inputs[objective.key], "label": torch.tensor([1, 4])}
    agree(objective.logits(batch), golden["outputs"]["logits"], noise["logits"])
    if "features" in golden["outputs"]:
        features = objective.encoder.pool(objective.encoder(batch[objective.key]))
        agree(features, golden["outputs"]["features"], noise["features"])
    # Smoothing belongs to our fine-tuning, not to the reference's plain loss.
    loss = torch.nn.functional.cross_entropy(objective.logits(batch), batch["label"])
    loss.backward()
    agree(loss, golden["outputs"]["loss"], noise["loss"])
    gradient = objective.encoder.get_parameter("embed.weight").grad
    assert gradient is not None
    agree(convolution(gradient, golden["gradient"]["shape"]), golden["gradient"], noise["gradient"])


def test_vit() -> None:
    golden, objective = load("vit-tiny_token_c64", {})
    noise, outputs = golden["float32_vs_float64"], golden["outputs"]
    image = inputs_of(golden)["image"]
    logits = objective.logits({"image": image})
    agree(logits, outputs["logits"], noise["logits"])
    agree(objective.encoder.embed(objective.encoder.patchify(image).x), outputs["patch_embed"], noise["patch_embed"])
    agree(objective.encoder(image, layer=2).sequence(), outputs["block1"], noise["block1"])
    agree(objective.encoder(image).sequence(), outputs["norm"], noise["norm"])
    logits.square().mean().backward()
    agree(
        objective.encoder.get_parameter("blocks.1.attn.qkv.weight").grad,
        golden["gradient"],
        noise["gradient:blocks.1.attn.qkv.weight"],
    )
    table = objective.encoder.get_parameter("positions.table").grad
    token = objective.encoder.get_parameter("class_token").grad
    agree(
        torch.cat([token, table[None]], dim=1),
        golden["more_gradients"]["pos_embed"],
        noise["gradient:pos_embed"],
    )


def test_fixed_positions_are_the_references() -> None:
    golden, objective = load("mae-pretrain-norm", {"crop": 32})
    for name, part in (("pos_embed", objective.encoder), ("decoder_pos_embed", objective.decoder)):
        table = part.positions.table
        agree(torch.cat([torch.zeros(1, table.shape[1]), table])[None], golden["kept_summaries"][name])
    golden, objective = load("videomae-pretrain-norm", {"crop": 32})
    agree(objective.encoder.positions.table[None], golden["outputs"]["encoder_pos_table"])
    agree(objective.decoder.positions.table[None], golden["outputs"]["decoder_pos_table"])


def test_order_inside_a_patch() -> None:
    golden = read("mae-pretrain-norm")
    patches = Patchify(8, 8, channels=3)(inputs_of(golden)["image"]).x
    agree(patches, golden["outputs"]["target_patchified"])


def test_a_wrong_number_is_noticed() -> None:
    golden, objective = load("mae-pretrain-norm", {"crop": 32})
    with torch.no_grad():
        objective.encoder.get_parameter("blocks.0.attn.qkv.weight")[0, 0] += 1.0
    inputs = inputs_of(golden)
    mask, _ = random_mask(inputs["noise"], 0.75)
    tokens = objective.encoder(inputs["image"], mask)
    with pytest.raises(AssertionError):
        agree(tokens.sequence(), golden["outputs"]["latent"])


def test_fill_is_frozen() -> None:
    assert fill("cls_token", [2]).tolist() == pytest.approx(FROZEN, abs=1e-7)

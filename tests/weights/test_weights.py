"""Name maps against states in the published layout; the numbers themselves are in tests/golden."""

import pytest
import torch
from torch import Tensor

from unveil import weights
from unveil.errors import UserError
from unveil.objectives import MaskedAutoencoder
from unveil.recipes import mae
from unveil.tokens import Patchify
from unveil.weights import Reader, _vit


def foreign_vit(width: int = 192, depth: int = 2, patch: int = 8, places: int = 16) -> dict[str, Tensor]:
    """A classifier in timm's names."""
    state = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, 1 + places, width),
        "patch_embed.proj.weight": torch.randn(width, 3, patch, patch),
        "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": torch.randn(width),
        "norm.bias": torch.randn(width),
        "head.weight": torch.randn(7, width),
        "head.bias": torch.randn(7),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }.items():
            state[f"blocks.{block}.{name}"] = torch.randn(shape)
    return state


def test_sizes_come_from_the_shapes() -> None:
    recipe = weights.load("vit", foreign_vit())
    encoder = recipe.objective.get_submodule("encoder")
    assert (encoder.width, encoder.depth) == (192, 2)
    assert encoder.get_submodule("blocks.0.attn").heads == 3
    assert encoder.patchify.size == (8, 8)
    assert recipe.objective.logits({"image": torch.randn(2, 3, 32, 32)}).shape == (2, 7)


def test_a_linear_embedding_is_the_convolution() -> None:
    weight = torch.randn(5, 3, 2, 4, 4)
    x = torch.randn(1, 3, 4, 8, 8)
    ours = Patchify(2, 4, 4, channels=3)(x).x @ _vit.embedding(weight).T
    theirs = torch.nn.functional.conv3d(x, weight, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_named() -> None:
    state = foreign_vit()
    with pytest.raises(UserError, match="no name map"):
        weights.load("vitt", state)
    with pytest.raises(UserError, match="no name map"):
        weights.load("_vit", state)
    lacking = {name: value for name, value in state.items() if name != "norm.weight"}
    with pytest.raises(UserError, match=r"missing: encoder.norm.weight.*--partial"):
        weights.load("vit", lacking)
    with pytest.warns(UserWarning, match=r"new, as initialised: encoder.norm.weight"):
        weights.load("vit", lacking, partial=True)
    with pytest.raises(UserError, match=r"left over: neck.bias"):
        weights.load("vit", {**state, "neck.bias": torch.zeros(2)})
    with pytest.raises(UserError, match=r"of another shape: encoder.blocks.1.norm1.weight"):
        weights.load("vit", {**state, "blocks.1.norm1.weight": torch.zeros(7)})
    with pytest.raises(UserError, match="give num_heads"):
        weights.load("vit", foreign_vit(width=20))
    with pytest.raises(UserError, match="no square image"):
        weights.load("vit", foreign_vit(places=15))
    with pytest.raises(UserError, match="no parameter's name begins with"):
        weights.load("vit", {k: v for k, v in foreign_vit().items() if "blocks" not in k})
    with pytest.raises(
        UserError, match=r"patches are of images, this system's of clips.*They look like those of mae or mocov3 or vit"
    ):
        weights.load("mae_st", state)
    with pytest.raises(UserError, match="leave the flag out"):
        weights.load("vit", state, size="B")


def test_saved_tables_are_loaded() -> None:
    """A published MAE checkpoint holds its fixed tables; they go where ours are."""
    ours = mae.mae(size="debug", crop=32, patch=8).objective.state_dict()
    state = {
        "cls_token": ours["encoder.class_token"],
        "pos_embed": torch.cat([torch.zeros(1, 1, 32), ours["encoder.positions.table"][None] + 1], dim=1),
        "decoder_pos_embed": torch.cat([torch.zeros(1, 1, 32), ours["decoder.positions.table"][None] + 2], dim=1),
        "mask_token": ours["decoder.mask_token"],
        "patch_embed.proj.weight": ours["encoder.embed.weight"].reshape(32, 8, 8, 3).movedim(-1, 1),
        "patch_embed.proj.bias": ours["encoder.embed.bias"],
    }
    parts = {
        "encoder.blocks.": "blocks.",
        "encoder.norm.": "norm.",
        "decoder.embed.": "decoder_embed.",
        "decoder.blocks.": "decoder_blocks.",
        "decoder.norm.": "decoder_norm.",
        "decoder.head.": "decoder_pred.",
    }
    state |= Reader(ours).renamed(parts)
    recipe = weights.load("mae", state, num_heads=2, decoder_num_heads=2)
    assert isinstance(recipe.objective, MaskedAutoencoder)
    loaded = recipe.objective.state_dict()
    assert torch.equal(loaded["encoder.positions.table"], ours["encoder.positions.table"] + 1)
    assert torch.equal(loaded["decoder.positions.table"], ours["decoder.positions.table"] + 2)
    assert torch.equal(loaded["encoder.embed.weight"], ours["encoder.embed.weight"])

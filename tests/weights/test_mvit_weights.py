"""Multiscale transformers of other families: torchvision's networks give the same logits; files that are not what they seem."""

from typing import Any

import pytest
import torch
from torchvision.models.video.mvit import MSBlockConfig, MViT

from unveil import weights
from unveil.errors import UserError

CUBE = [3, 3, 3]
#: heads, width before and after, kernel and stride of the queries; three blocks as in `mvit_v1_b` and `mvit_v2_s`.
BLOCKS = {
    "mvit": [(1, 8, 16, [], []), (2, 16, 16, CUBE, [1, 2, 2]), (2, 16, 16, [], [])],
    "mvitv2": [(1, 8, 8, CUBE, [1, 1, 1]), (2, 8, 16, CUBE, [1, 2, 2]), (2, 16, 16, CUBE, [1, 1, 1])],
}


def torchvisions(recipe: str) -> MViT:
    blocks = [
        MSBlockConfig(heads, width, out, kernel, CUBE, stride, [1, kv, kv])
        for (heads, width, out, kernel, stride), kv in zip(BLOCKS[recipe], (8, 4, 4), strict=True)
    ]
    new = recipe == "mvitv2"
    return MViT(
        (64, 64), 4, blocks, new, residual_with_cls_embed=False, rel_pos_embed=new, proj_after_attn=new, num_classes=7
    )


@pytest.mark.parametrize("recipe", BLOCKS)
@pytest.mark.filterwarnings("ignore:the strides of keys")
def test_torchvisions_logits(recipe: str) -> None:
    torch.manual_seed(0)
    network = torchvisions(recipe).eval()
    x = torch.randn(1, 3, 4, 64, 64)
    ours = weights.load(recipe, network.state_dict()).objective.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.logits({"video": x}), network(x), rtol=1e-4, atol=1e-4)
    other = {"mvit": "mvitv2", "mvitv2": "mvit"}[recipe]
    with pytest.raises(UserError, match=f"use --recipe {recipe}.*those of {recipe}"):
        weights.convert(other, network.state_dict())


def image(recipe: str = "mvitv2", **flags: Any) -> dict[str, torch.Tensor]:
    """Our tiny network of images under PySlowFast's names; poolings have kernels of three axes there."""
    from unveil import build

    state = build(recipe, size="16x1x1-2", crop=32, num_classes=7, **flags).objective.state_dict()
    renamed = {}
    for name, value in state.items():
        for ours, theirs in {
            "encoder.": "", "stem.conv": "patch_embed.proj", "head.linear": "head.projection",
            "positions.tables.0": "rel_pos_w", "positions.tables.1": "rel_pos_h",
        }.items():  # fmt: skip
            name = name.replace(ours, theirs)
        for part in "qkv":
            name = name.replace(f"pool_{part}.conv", f"pool_{part}").replace(f"pool_{part}.norm", f"norm_{part}")
        renamed[name] = value[:, :, None] if "attn.pool" in name else value
    return renamed


def test_images_of_both_repositories() -> None:
    state = image()
    flat = {name: value.squeeze(2) if "attn.pool" in name else value for name, value in state.items()}
    for given in (state, flat):
        converted = weights.convert("mvitv2", given)
        assert not converted.unused
        assert converted.flags == {"size": "16x1x1-2", "widen": "attention", "crop": 32, "num_classes": 7}
        weights.build(converted)


def test_where_the_width_grows_is_read_off_the_shapes() -> None:
    assert weights.convert("mvitv2", image(widen="mlp")).flags["widen"] == "mlp"


def test_what_is_no_multiscale_transformer() -> None:
    state = image()
    patched = state | {"patch_embed.proj.weight": torch.zeros(16, 3, 16, 16)}
    with pytest.raises(UserError, match="patches are of"):
        weights.convert("mvitv2", patched)
    narrow = state | {"blocks.0.attn.norm_k.weight": torch.zeros(5)}
    with pytest.raises(UserError, match="do not double"):
        weights.convert("mvitv2", narrow)
    with pytest.raises(UserError, match="PyTorchVideo"):
        weights.convert("pytorchvideo", state)


def test_two_names_of_one_tensor() -> None:
    name = "blocks.0.attn.pool_k.weight"
    state = {
        "patch_embed.patch_model.weight": torch.zeros(1),
        name: torch.zeros(1),
        "blocks.0.attn._attention_pool_k.pool.weight": torch.ones(1),
    }
    with pytest.raises(UserError, match="one tensor"):
        weights.convert("pytorchvideo", state)

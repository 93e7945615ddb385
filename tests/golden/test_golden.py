"""The published implementations' numbers, every one of every file, reproduced through the name maps of `unveil.weights`."""

import pytest
import torch
from harness import QUANTITIES, build, compare
from reference import fill, names, read, state_of

FROZEN = [0.194383904337883, -0.013153614476323128]
#: What depends on the input alone, and what on nothing.
OF_THE_INPUT = {"mask", "masked_targets", "places", "target_patches"}
CONSTANT = {"positions", "table", "distances", "next_place"}


@pytest.mark.parametrize("name", names())
def test_numbers_are_the_references(name: str) -> None:
    for row in compare(name):
        assert row.deviation.found <= row.deviation.allowed, row


@pytest.mark.parametrize(
    "name",
    [
        *("beit-pretrain", "beit-finetune"),
        *("audiomae-pretrain-swin", "audiomae-pretrain-mask2d", "audiomae-finetune", "audiomae-finetune-mask2d"),
        *("mae3d-pretrain-block", "mae3d-pretrain-random"),
        *("mae-pretrain-norm", "mae_st-finetune", "videomae-pretrain-raw", "vit-tiny_token_c64"),
        *("omnimae-pretrain-image", "omnimae-finetune-image", "omnimae-finetune-video"),
        *("maskfeat-vit-image", "maskfeat-mvitv2-video"),
        *("mvitv2-video_s16x4_d16_t8_c64", "pytorchvideo-mvit_b_16x4_d16_t8_c64"),
        *("resnext-b2222_8x4d_c64", "slow-8x8_r50_w16_c64", "clip-vit", "clip-resnet"),
        *("moco-v1", "mocov3-vit", "simsiam-resnet-basic"),
    ],
)
def test_wrong_numbers_are_noticed(name: str) -> None:
    """Of other weights every number of the network is another, of another input the mask and the targets, too."""
    for salts, same in (
        ({"weights_salt": "x"}, CONSTANT | OF_THE_INPUT),
        ({"inputs_salt": "x"}, CONSTANT | {"mask"} | {"projected text"}),  # texts are the same integers
    ):
        for row in compare(name, **salts):
            if not {row.quantity, row.quantity.split()[0]} & same:
                assert row.deviation.found > 10 * row.deviation.allowed, row


def test_an_output_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(QUANTITIES, "logits")
    with pytest.raises(NotImplementedError, match="logits"):
        compare("mae-finetune-gap")


def test_a_parameter_without_counterpart_is_an_error() -> None:
    golden = read("mae-finetune-gap")
    state = state_of(golden)
    with pytest.raises(AssertionError, match="left over"):
        build(golden, state | {"extra": torch.zeros(1)})
    del state["fc_norm.bias"]
    with pytest.raises(AssertionError, match="not of the reference"):
        build(golden, state)


def test_fill_is_frozen() -> None:
    assert fill("cls_token", [2]).tolist() == pytest.approx(FROZEN, abs=1e-7)

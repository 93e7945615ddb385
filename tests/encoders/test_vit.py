from typing import Any

import pytest
import torch
from torch import nn

from unveil.encoders import SIZES, Dimensions, ViT, dimensions
from unveil.encoders.encoder import Encoder
from unveil.errors import UserError
from unveil.fitting import fit
from unveil.layers import RelativePositionBias, by_depth
from unveil.masking import Mask
from unveil.tokens import Patchify, Positions, Tokens, coordinates

PATCHIFY = Patchify(8, 8, channels=3)
GRID = (4, 4)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MASK = Mask(
    torch.tensor([[0, 5, 10], [1, 2, 3]]),
    torch.tensor([[i for i in range(16) if i not in (0, 5, 10)], [0, *range(4, 16)]]),
)


def vit(**options: Any) -> ViT:
    torch.manual_seed(0)
    return ViT("debug", PATCHIFY, Positions(GRID, 32), **options).eval()


def test_sizes() -> None:
    assert dimensions("B") == (768, 12, 12)
    assert dimensions(Dimensions(8, 1, 2)).depth == 1
    assert all(size.width % size.heads == 0 for size in SIZES.values())


def test_only_the_visible_are_encoded() -> None:
    encoder = vit()
    tokens = encoder(X, MASK)
    assert tokens.x.shape == (2, 3, 32)
    assert tokens.prefix.shape == (2, 1, 32)
    assert tokens.grid == encoder.mask_grid(X) == GRID
    assert tokens.coords[0].tolist() == [[0, 0], [1, 1], [2, 2]]
    hidden = PATCHIFY(X).x.clone()
    hidden.scatter_(1, MASK.masked[..., None].expand(-1, -1, 192), 9.0)
    torch.testing.assert_close(encoder(PATCHIFY.join(hidden, GRID), MASK).x, tokens.x)


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    everything = Mask(torch.arange(16).expand(2, -1), torch.empty(2, 0, dtype=torch.int64))
    for masked in ("drop", "replace"):
        encoder = vit(masked=masked)
        torch.testing.assert_close(encoder(X, everything).x, encoder(X).x)


def test_a_mask_token_in_place() -> None:
    encoder = vit(masked="replace")
    tokens = encoder(X, MASK)
    assert tokens.x.shape == (2, 16, 32)
    hidden = PATCHIFY(X).x.clone()
    hidden.scatter_(1, MASK.masked[..., None].expand(-1, -1, 192), 9.0)
    torch.testing.assert_close(encoder(PATCHIFY.join(hidden, GRID), MASK).x, tokens.x)
    assert not torch.allclose(tokens.x, encoder(X).x)


def test_layers_from_both_ends() -> None:
    encoder = vit()
    assert torch.equal(encoder(X, layer=2).x, encoder(X, layer=-1).x)
    assert torch.equal(encoder(X, layer=1).x, encoder(X, layer=-2).x)
    assert encoder.norm is not None
    torch.testing.assert_close(encoder.norm(encoder(X, layer=2).x), encoder(X).x)
    for layer in (0, 3, -3):
        with pytest.raises(UserError, match="layers 1 to 2"):
            encoder(X, layer=layer)


def test_pooling() -> None:
    tokens = vit()(X)
    assert torch.equal(vit().pool(tokens), tokens.x.mean(1))
    assert torch.equal(vit(pool="class").pool(tokens), tokens.prefix[:, 0])
    pooled = vit(norm="pooled")
    assert pooled.norm is None
    assert pooled.fc_norm is not None
    assert pooled.pool(pooled(X)).mean(1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="class token"):
        vit(pool="class", class_token=False)


def test_layer_of_covers_every_parameter() -> None:
    encoder = vit(norm="pooled", masked="replace")
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert layers["embed.weight"] == layers["class_token"] == layers["mask_token"] == 0
    assert layers["blocks.0.norm1.weight"] == 1
    assert layers["blocks.1.mlp.fc2.bias"] == 2
    assert layers["fc_norm.weight"] == 3
    assert vit().layer_of("norm.bias") == 3


def test_drop_path_grows_with_depth() -> None:
    encoder = ViT(Dimensions(8, 3, 2), PATCHIFY, None, drop_path=0.2)
    assert [block.drop_path1.rate for block in encoder.blocks] == pytest.approx([0, 0.1, 0.2])


class Bias(nn.Module):
    """Lets no token look at the last one of the grid."""

    def forward(self, coords: torch.Tensor, grid: tuple[int, ...], prefix: int) -> torch.Tensor:
        num = prefix + coords.shape[1]
        bias = torch.zeros(1, 1, num, num)
        bias[..., -1] = float("-inf")
        return bias


def test_an_attention_bias_reaches_every_block() -> None:
    encoder = vit(attention_bias=Bias())
    changed = X.clone()
    changed[:, :, -8:, -8:] += 3
    torch.testing.assert_close(encoder(changed).x[:, :-1], encoder(X).x[:, :-1])
    assert not torch.allclose(vit()(changed).x[:, :-1], vit()(X).x[:, :-1])


def with_bias(shared: bool) -> ViT:
    """Of blocks with relative positions of random scores."""
    torch.manual_seed(0)
    one = RelativePositionBias(GRID, 2)
    bias = one if shared else nn.ModuleList([one, RelativePositionBias(GRID, 2)])
    encoder = ViT("debug", PATCHIFY, None, attention_bias=bias, initialise=by_depth, layer_scale=0.1).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith(".table"):
            nn.init.normal_(parameter)
    return encoder


def test_each_block_may_have_a_bias_of_its_own() -> None:
    encoder = with_bias(shared=False)
    first, second = encoder(X, layer=1).x, encoder(X).x
    nn.init.zeros_(encoder.attention_bias[1].table)
    assert torch.equal(encoder(X, layer=1).x, first)
    assert not torch.allclose(encoder(X).x, second)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters() if "bias." in name}
    assert layers == {"attention_bias.0.table": 1, "attention_bias.1.table": 2}
    assert with_bias(shared=True).layer_of("attention_bias.table") == 3


def test_a_shared_bias_begins_those_of_each_block() -> None:
    """As fine-tuning begins with what pre-training learned: the same answers, and the report misses nothing."""
    shared, apart = with_bias(shared=True), with_bias(shared=False)
    assert not torch.allclose(shared(X).x, apart(X).x)
    state = shared.state_dict()
    report = fit(apart, state)
    assert set(state) == set(shared.state_dict())
    assert "attention_bias.table" in state
    assert not report.unused
    assert not report.fresh
    assert {"attention_bias.0.table", "attention_bias.1.table"} <= set(report.loaded)
    assert torch.equal(shared(X).x, apart(X).x)
    other = with_bias(shared=False)
    other.load_state_dict(shared.state_dict())
    assert torch.equal(shared(X).x, other(X).x)


def test_a_shared_bias_of_another_grid_is_interpolated_for_each_block() -> None:
    shared = with_bias(shared=True)
    finer = nn.ModuleList(RelativePositionBias((6, 6), 2) for _ in range(2))
    apart = ViT("debug", PATCHIFY, None, attention_bias=finer, layer_scale=0.1).eval()
    report = fit(apart, shared.state_dict())
    assert report.resized["attention_bias.1.table"] == ([52, 2], [124, 2])
    larger = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(apart(larger).x, shared(larger).x)


def test_recomputing_with_a_bias_changes_nothing() -> None:
    for shared in (True, False):
        encoder = with_bias(shared).train()
        gradients = []
        for encoder.checkpointing in (False, True):
            encoder.zero_grad()
            encoder(X).x.square().sum().backward()
            gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
        for plain, recomputed in zip(*gradients, strict=True):
            torch.testing.assert_close(recomputed, plain)


class Padded:
    """Groups of a set, some of them padding: their second half is never real."""

    width = 4

    def grid(self, shape) -> tuple[int, ...]:
        return (shape[1],)

    def __call__(self, x: torch.Tensor, indices: torch.Tensor | None = None) -> Tokens:
        num = x.shape[1]
        valid = (torch.arange(num) < num // 2).expand(len(x), -1)
        tokens = Tokens(x, coordinates((num,)).expand(len(x), -1, -1), (num,), valid=valid)
        return tokens if indices is None else tokens.gather(indices)


@pytest.mark.parametrize("bias", [None, Bias()])
def test_padding_changes_nothing(bias) -> None:
    torch.manual_seed(0)
    encoder = ViT("debug", Padded(), None, embed=nn.Linear(4, 32), attention_bias=bias).eval()
    x = torch.randn(2, 6, 4)
    changed = torch.cat([x[:, :3], x[:, 3:] + 7], dim=1)
    torch.testing.assert_close(encoder.pool(encoder(x)), encoder.pool(encoder(changed)))


def test_the_contract_has_no_default_behaviour() -> None:
    encoder = Encoder()
    for call in (
        lambda: encoder(X),
        lambda: encoder.mask_grid(X),
        lambda: encoder.pool(Tokens(X, X, GRID)),
        lambda: encoder.layer_of("x"),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_repr_is_readable() -> None:
    assert "Patchify(8, 8, channels=3), masked='drop'" in repr(vit())


def test_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = vit(masked="replace", qkv_bias="qv", pool="class")(X, MASK)
    assert tokens.x.isfinite().all()


def test_sizes_by_their_numbers() -> None:
    assert dimensions("48x3x4") == Dimensions(48, 3, 4)
    assert dimensions("B") == Dimensions(768, 12, 12)
    for wrong, words in (("48x3", "There is no size '48x3'"), ("b", "use debug, nano"), ("50x3x4", "do not divide")):
        with pytest.raises(UserError, match=words):
            dimensions(wrong)

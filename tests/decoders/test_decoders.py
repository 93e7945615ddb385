from typing import Any

import pytest
import torch

from unveil.decoders import LinearDecoder, TransformerDecoder, WindowDecoder
from unveil.tokens import Positions, Tokens, coordinates

GRID = (2, 3)
COORDS = coordinates(GRID).expand(2, -1, -1)


def tokens(num: int = 6, **fields: Any) -> Tokens:
    x = torch.randn(2, num, 16, generator=torch.Generator().manual_seed(0))
    return Tokens(x, COORDS[:, :num], GRID, **fields)


def decoder(**options: Any) -> TransformerDecoder:
    torch.manual_seed(0)
    return TransformerDecoder(16, 5, Positions(GRID, 8), width=8, depth=2, heads=2, **options).eval()


def test_answers_follow_the_places_asked_for() -> None:
    model = decoder()
    answers = model(tokens(3), COORDS[:, 3:])
    assert answers.shape == (2, 3, 5)
    turned = model(tokens(3), COORDS[:, 3:].flip(1))
    torch.testing.assert_close(turned.flip(1), answers)


def test_the_order_of_visible_tokens_does_not_matter() -> None:
    model, seen = decoder(), tokens(3)
    shuffled = seen._replace(x=seen.x[:, [2, 0, 1]], coords=seen.coords[:, [2, 0, 1]])
    torch.testing.assert_close(model(shuffled, COORDS[:, 3:]), model(seen, COORDS[:, 3:]))


def test_class_tokens() -> None:
    prefix = torch.randn(2, 1, 16)
    other = prefix + 1
    coords = COORDS[:, 3:]
    shared, own, none = decoder(class_token="shared"), decoder(class_token="own"), decoder()
    assert not torch.allclose(shared(tokens(3, prefix=prefix), coords), shared(tokens(3, prefix=other), coords))
    for model in (own, none):
        assert torch.equal(model(tokens(3, prefix=prefix), coords), model(tokens(3, prefix=other), coords))
    assert own.class_token is not None
    assert none.class_token is None


def test_embedding_without_bias() -> None:
    assert decoder(embed_bias=False).embed.bias is None


def test_positions_before_the_embedding_are_those_of_wide_tokens() -> None:
    torch.manual_seed(0)
    wide = Positions(GRID, 16)
    model = TransformerDecoder(16, 5, wide, width=8, depth=2, heads=2, positions_first=True).eval()
    assert model.mask_token.shape == (1, 1, 16)
    asked, seen = COORDS[:, 3:], tokens(3)
    answers = model(seen, asked)
    # A linear embedding of a sum: the same decoder with embedded positions and an embedded mask token.
    after = decoder()
    state = model.state_dict() | {
        "mask_token": model.embed(model.mask_token),
        "positions.table": wide.table @ model.embed.weight.T,
    }
    state["mask_token"] = state["mask_token"].detach()
    after.load_state_dict({name: value for name, value in state.items() if name in after.state_dict()})
    torch.testing.assert_close(after(seen, asked), answers)


def test_padded_tokens_have_no_say() -> None:
    model, coords = decoder(), COORDS[:, 3:]
    valid = torch.tensor([[True, True, False]] * 2)
    seen = tokens(3, valid=valid)
    changed = seen._replace(x=seen.x + (~valid)[..., None] * 5.0)
    torch.testing.assert_close(model(changed, coords), model(seen, coords))


def test_linear_reads_off_the_whole_grid() -> None:
    model = LinearDecoder(16, 5)
    whole = tokens()
    coords = COORDS[:, [4, 1]]
    assert torch.equal(model(whole, coords), model.head(whole.x[:, [4, 1]]))
    with pytest.raises(ValueError, match="replace"):
        model(tokens(3), coords)


def windowed(grid: tuple[int, ...], **options: Any) -> WindowDecoder:
    torch.manual_seed(0)
    return WindowDecoder(16, 5, Positions(grid, 8), **{"width": 8, "depth": 2, "heads": 2, **options}).eval()


def test_a_decoder_of_windows_puts_tokens_in_their_places() -> None:
    grid = (9, 3)
    model, coords = windowed(grid), coordinates(grid).expand(2, -1, -1)
    order = torch.randperm(27, generator=torch.Generator().manual_seed(1))
    seen, asked = order[:7], order[7:]
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(2))
    answers = model(Tokens(x, coords[:, seen], grid), coords[:, asked])
    assert answers.shape == (2, 20, 5)
    turned = model(Tokens(x.flip(1), coords[:, seen.flip(0)], grid), coords[:, asked.flip(0)])
    torch.testing.assert_close(turned.flip(1), answers)


def test_windows_shift_in_every_second_block_alone() -> None:
    """With one block, a token is heard within its window of four; with a second, as far as the shifted ones reach."""
    grid = (12, 2)
    coords = coordinates(grid).expand(1, -1, -1)
    for depth, reach in ((1, 4), (2, 6)):
        model = windowed(grid, depth=depth)
        x = torch.zeros(1, 1, 16, requires_grad=True)
        answers = model(Tokens(x, coords[:, :1], grid), coords)
        heard = [
            torch.autograd.grad(answers[0, place].sum(), x, retain_graph=True)[0].any().item() for place in range(24)
        ]
        assert heard == [place // 2 < reach for place in range(24)]


def test_a_decoder_of_windows_takes_other_grids() -> None:
    model = windowed((4, 4))
    grid = (5, 7)
    coords = coordinates(grid).expand(2, -1, -1)
    answers = model(Tokens(torch.randn(2, 3, 16), coords[:, :3], grid), coords[:, 3:])
    assert answers.shape == (2, 32, 5)
    assert answers.isfinite().all()


def test_a_decoder_of_windows_takes_no_padding() -> None:
    with pytest.raises(ValueError, match="padding"):
        windowed(GRID)(tokens(3, valid=torch.ones(2, 3, dtype=torch.bool)), COORDS)

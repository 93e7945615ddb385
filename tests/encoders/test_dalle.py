import pytest
import torch

from unveil.decoders import DalleDecoder
from unveil.encoders import DALLE, DalleEncoder, VisualTokenizer
from unveil.encoders.dalle import dalle_dimensions
from unveil.errors import UserError
from unveil.masking import Mask

X = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_released_one_has_its_parameters() -> None:
    """Counted on the classes of openai/DALL-E with their defaults."""
    with torch.device("meta"):
        assert millions(VisualTokenizer(DalleEncoder("B"), 8192)) == pytest.approx(53.786, abs=1e-3)
        assert millions(DalleDecoder("B", 8192, 6)) == pytest.approx(43.830, abs=1e-3)


def test_a_code_for_eight_by_eight_pixels() -> None:
    tokenizer = VisualTokenizer(DalleEncoder("debug"), 20)
    logits = tokenizer(X)
    assert logits.grid == (4, 6)
    assert logits.x.shape == (2, 24, 20)
    codes = tokenizer.codes(X)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, logits.x.argmax(-1))
    assert not codes.requires_grad


def test_the_decoder_is_the_mirror() -> None:
    tokenizer, decoder = VisualTokenizer(DalleEncoder("debug"), 20), DalleDecoder("debug", 20, 6)
    tokens = tokenizer(X)
    assert decoder(tokens._replace(x=tokens.x.softmax(-1))).shape == (2, 6, 32, 48)


def test_a_code_is_decoded_at_its_own_place() -> None:
    """Another code at one place changes the picture around it, and nowhere far away."""
    torch.manual_seed(0)
    decoder = DalleDecoder("debug", 20, 6)
    tokens = VisualTokenizer(DalleEncoder("debug"), 20)(torch.zeros(1, 3, 8, 400))  # 1 × 50
    before, after = torch.eye(20)[torch.zeros(2, 1, 50, dtype=torch.int64)]
    after = after.clone()
    after[0, 0] = torch.eye(20)[7]
    changed = (decoder(tokens._replace(x=before)) - decoder(tokens._replace(x=after))).abs().amax(dim=(0, 1, 2))
    assert changed[:8].min() > 0
    assert changed[200:].max() == 0


def test_early_layers_are_finer() -> None:
    encoder = DalleEncoder("debug")
    shapes = [(encoder(X, layer=layer).grid, encoder(X, layer=layer).x.shape[-1]) for layer in (1, 2, 3, 4)]
    assert shapes == [((16, 24), 8), ((8, 12), 16), ((4, 6), 32), ((4, 6), 64)]
    assert torch.equal(encoder(X).x, encoder(X, layer=4).x.relu())


def test_what_it_cannot_do_is_said() -> None:
    encoder = DalleEncoder("debug")
    nothing = torch.empty(2, 0, dtype=torch.int64)
    with pytest.raises(UserError, match="masking"):
        encoder(X, Mask(nothing, nothing))
    with pytest.raises(UserError, match="masking"):
        encoder.mask_grid(X)
    with pytest.raises(UserError, match="8 has to divide"):
        encoder(X[:, :, :, :30])
    with pytest.raises(UserError, match="layers 1 to 4"):
        encoder(X, layer=5)


def test_sizes() -> None:
    assert dalle_dimensions("B") == (256, 2)
    assert dalle_dimensions("96x3") == (96, 3)
    assert all(size.width % 4 == 0 for size in DALLE.values())
    for wrong in ("L", "30x2", "x"):
        with pytest.raises(UserError, match="no size"):
            dalle_dimensions(wrong)

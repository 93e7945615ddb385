import pytest
import torch
from torch import Tensor, nn

from unveil.decoders import LinearDecoder, TransformerDecoder
from unveil.encoders import Encoder, ViT
from unveil.heads import LinearHead
from unveil.losses import cross_entropy, mse, regression
from unveil.masking import Mask, Random
from unveil.objectives import MaskedAutoencoder, Objective, Supervised
from unveil.targets import Pixels
from unveil.tokens import Patchify, Positions, Tokens, refine

PATCHIFY = Patchify(8, 8, channels=3)
GRID = (4, 4)


def batch() -> dict[str, Tensor]:
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seed": torch.tensor([1, 2, 3]), "label": torch.tensor([0, 1, 1])}


def autoencoder(normalize=None) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(
        "image",
        ViT("debug", PATCHIFY, Positions(GRID, 32)),
        TransformerDecoder(32, PATCHIFY.width, Positions(GRID, 16), width=16, depth=1, heads=2),
        Random(0.75),
        Pixels(PATCHIFY, "image", normalize=normalize),
        mse,
    ).eval()


def test_the_loss_is_of_the_masked_patches_alone() -> None:
    objective, b = autoencoder(), batch()
    mask = objective.masked(b)
    prediction, grid, indices = objective.predict(b, mask)
    assert grid == GRID
    assert torch.equal(indices, mask.masked)
    true = PATCHIFY(b["image"]).gather(mask.masked).x
    assert objective(b, mask=mask)["loss"].item() == pytest.approx((prediction - true).square().mean().item())
    assert torch.equal(objective(b)["loss"], objective(b, mask=mask)["loss"])


@pytest.mark.parametrize("decoder", ["transformer", "linear"])
def test_reading_in_pieces_changes_nothing_and_what_listens_to_the_head_still_hears_it(
    monkeypatch, decoder: str
) -> None:
    objective, b = autoencoder("channel"), batch()
    if decoder == "linear":
        objective.encoder = ViT("debug", PATCHIFY, Positions(GRID, 32), masked="replace")
        objective.decoder = LinearDecoder(32, PATCHIFY.width)
    monkeypatch.setattr(regression, "PIECE_ON_CPU", 1)  # a sample at a time
    loss = objective(b)["loss"]
    gradients = torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True)
    head, heard = objective.decoder.head, []
    head.register_forward_hook(lambda _module, _args, result: heard.append(result.shape))
    again = objective(b)["loss"]
    assert heard == [(3, 12, PATCHIFY.width)]
    torch.testing.assert_close(loss, again)
    expected = torch.autograd.grad(again, list(objective.parameters()), allow_unused=True)
    for own, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(own, wanted)


class Own(nn.Module):
    """Somebody's decoder, that only keeps to `(tokens, coords) → predictions`."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, PATCHIFY.width)

    def forward(self, tokens: Tokens, coords: Tensor) -> Tensor:
        return self.head(tokens.mean()[:, None].expand(-1, coords.shape[1], -1))


def test_a_decoder_whose_head_does_not_stand_apart_is_called_whole() -> None:
    objective, b = autoencoder(), batch()
    objective.decoder = Own()
    prediction, grid, indices = objective.predict(b, objective.masked(b))
    torch.testing.assert_close(objective(b)["loss"], mse(prediction, objective.target(b, grid, indices)))


def test_reconstructions_differ_only_where_it_was_masked() -> None:
    objective, b = autoencoder("patch"), batch()
    mask = objective.masked(b)
    pictures = objective.reconstruct(b, mask)
    assert torch.equal(pictures.input, b["image"])
    assert pictures.wanted is None  # the input itself
    seen, hidden, drawn = (PATCHIFY(picture) for picture in pictures[:3])
    assert torch.equal(hidden.gather(mask.visible).x, seen.gather(mask.visible).x)
    assert torch.equal(drawn.gather(mask.visible).x, seen.gather(mask.visible).x)
    assert not hidden.gather(mask.masked).x.any()
    assert not torch.equal(drawn.gather(mask.masked).x, seen.gather(mask.masked).x)
    assert torch.equal(objective.reconstruct(b).predicted, pictures.predicted)


class Colour:
    """Predict the mean colour of each place: a target that is no picture."""

    def __call__(self, batch, grid, indices) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(batch["image"], grid).flatten(2).transpose(1, 2)
        return means.gather(1, indices[..., None].expand(-1, -1, 3))


class Convolutions(Encoder):
    """Masks on a coarse grid, a token in place on the stem's, features between: as MaskFeat's MViT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.depth = 16, 1
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.down = nn.Conv2d(8, 16, 2, 2)
        self.token = nn.Parameter(torch.randn(8))

    def mask_grid(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[2] // 16, x.shape[3] // 16)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        stem = Tokens.of_map(self.stem(x))
        if mask is not None:
            where = refine(mask.masked, self.mask_grid(x), stem.grid)[..., None].expand(-1, -1, 8)
            stem = stem._replace(x=stem.x.scatter(1, where, self.token.expand(where.shape)))
        return Tokens.of_map(self.down(stem.map()))._replace(stages=([stem],))


def test_three_grids_and_a_token_in_place() -> None:
    objective = MaskedAutoencoder("image", Convolutions(), LinearDecoder(16, 3), Random(0.5), Colour(), mse)
    b = batch()
    mask = objective.masked(b)
    prediction, grid, indices = objective.predict(b, mask)
    assert mask.masked.shape == (3, 2)
    assert grid == (4, 4)
    assert prediction.shape == (3, 8, 3)
    assert set(indices[0].tolist()).issubset(range(16))
    objective(b, mask=mask)["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())
    with pytest.raises(TypeError, match="cannot be drawn"):
        objective.reconstruct(b)


def supervised() -> Supervised:
    torch.manual_seed(0)
    encoder = ViT("debug", PATCHIFY, Positions(GRID, 32), norm="pooled")
    return Supervised("image", encoder, LinearHead(32, 2), cross_entropy).eval()


def test_accuracy_is_logged_for_class_indices_only() -> None:
    objective, b = supervised(), batch()
    answer = objective(b)
    assert answer["top1"].item() == pytest.approx((objective.logits(b).argmax(-1) == b["label"]).float().mean().item())
    b["label"] = torch.tensor([[0.3, 0.7]] * 3)
    assert "top1" not in objective(b)


def test_the_encoder_is_registered_once() -> None:
    objective = supervised()
    assert {name.split(".")[0] for name in objective.state_dict()} == {"encoder", "head"}
    assert objective.towers["image"] is objective.encoder


def test_class_weights_change_the_loss_but_not_the_state() -> None:
    objective, b = supervised(), batch()
    before, names = objective(b)["loss"], set(objective.state_dict())
    objective.weigh(torch.tensor([0.0, 1.0]))
    after = objective(b)["loss"]
    assert after.item() != before.item()
    expected = cross_entropy(objective.logits(b)[1:], torch.tensor([1, 1]))
    assert after.item() == pytest.approx(expected.item() * 2 / 3)  # the mean over samples, of weight zero too
    assert set(objective.state_dict()) == names


def test_the_contract() -> None:
    objective = Objective()
    objective.before_step(0.0)
    objective.after_step(1.0)
    with pytest.raises(NotImplementedError):
        objective(batch())
    with pytest.raises(NotImplementedError):
        _ = objective.towers


def test_repr_shows_the_parts() -> None:
    shown = repr(autoencoder())
    assert "masker=Random(ratio=0.75)" in shown
    assert "Pixels(Patchify(8, 8, channels=3), 'image'" in shown
    assert "'image'" in repr(supervised())

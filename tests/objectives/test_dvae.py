import math
from typing import Any

import pytest
import torch

import unveil
from unveil.layers import gumbel
from unveil.objectives import DiscreteVAE
from unveil.objectives.dvae import half_cosine

VOCAB = 16


def objective(**flags: Any) -> DiscreteVAE:
    torch.manual_seed(0)
    found = unveil.build("dvae", size="debug", crop=32, vocab=VOCAB, **flags).objective
    assert isinstance(found, DiscreteVAE)
    return found


def batch(number: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": 0.1 + 0.8 * torch.rand(number, 3, 32, 32, generator=generator),
        "seed": torch.randint(2**62, (number,), generator=generator),
    }


def test_noise_is_of_the_gumbel_distribution_and_of_its_sample_alone() -> None:
    seeds = torch.arange(64)
    noise = gumbel(seeds, (50, 100))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant
    assert noise.std().item() == pytest.approx(math.pi / math.sqrt(6), abs=0.01)
    assert torch.equal(noise[5:7], gumbel(seeds[5:7], (50, 100)))
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(64)
    assert correlation.abs().max() < 0.1


def test_what_is_largest_with_noise_is_drawn_as_often_as_its_probability() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    drawn = (p.log() + gumbel(torch.arange(1), (20000, 3))).argmax(-1)
    torch.testing.assert_close(torch.bincount(drawn[0]) / 20000, p, rtol=0, atol=0.015)


def test_temperature_and_weight_follow_the_progress() -> None:
    model = objective(cooling=0.5, beta_growth=0.1)
    assert (model.temperature, model.beta) == (1.0, 0.0)
    model.before_step(0.25)
    assert model.temperature == pytest.approx((1 + 1 / 16) / 2)
    assert model.beta == pytest.approx(6.6)
    model.before_step(0.9)
    assert model.temperature == pytest.approx(1 / 16)
    assert half_cosine(1.0, 2.0, 0.0, 0.0) == 2.0  # a share of nothing is over at once


def test_the_loss_is_the_bound_of_one_value() -> None:
    """Reconstruction of a value, and the divergence of all of its image's codes divided by all of its values."""
    model, data = objective(), batch()
    model.before_step(1.0)
    found = model(data)
    logits = model.tokenizer(data["image"]).x
    uniform = torch.full((VOCAB,), 1 / VOCAB)
    q = torch.distributions.Categorical(logits=logits)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Categorical(uniform))
    assert found["kl"].item() == pytest.approx(kl.mean().item(), rel=1e-4)
    expected = found["reconstruction"] + 6.6 * kl.sum(1).mean() / (3 * 32 * 32)
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["temperature"].item() == pytest.approx(1 / 16)


def test_a_cold_mixture_is_one_code() -> None:
    """Its reconstruction is that of the codes that were drawn; of a warm one another."""
    model, data = objective(), batch()
    tokens = model.tokenizer(data["image"])
    drawn = (tokens.x + gumbel(data["seed"], tokens.x.shape[1:])).argmax(-1)
    chosen = torch.nn.functional.one_hot(drawn, VOCAB).float()
    expected = model.loss(model.decoder(tokens._replace(x=chosen)), data["image"])
    warm = model(data)["reconstruction"]
    model.temperature = 1e-4
    torch.testing.assert_close(model(data)["reconstruction"], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(warm, expected, rtol=1e-3)


def test_a_sample_learns_the_same_in_any_company() -> None:
    model, data = objective(), batch()
    whole = model(data)["loss"]
    alone = [model({key: value[i : i + 1] for key, value in data.items()})["loss"] for i in range(4)]
    torch.testing.assert_close(torch.stack(alone).mean(), whole)


def test_reconstructions_are_pixels_of_the_likeliest_codes() -> None:
    model, data = objective(), batch()
    seen = model.reconstruct(data)
    assert seen.masked is None
    assert torch.equal(seen.input, data["image"])
    assert seen.predicted.shape == data["image"].shape
    assert (seen.predicted > 0).all()
    assert (seen.predicted < 1).all()
    assert torch.equal(model.codes(data), model.tokenizer.codes(data["image"]))
    assert model.vocab == VOCAB


def test_codes_are_learned() -> None:
    """Images of few colours: what comes back is nearer than their mean, through codes alone."""
    model = objective(cooling=0.5, beta_growth=0.1)
    colours = torch.tensor([[0.2, 0.2, 0.2], [0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    generator = torch.Generator().manual_seed(0)
    images = colours[torch.randint(4, (8, 4, 4), generator=generator)].permute(0, 3, 1, 2)
    images = images.repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):
        model.before_step(step / 150)
        data = {"image": images, "seed": torch.arange(8) + 1000 * step}
        optimizer.zero_grad()
        model(data)["loss"].backward()
        optimizer.step()
    error = (model.reconstruct({"image": images}).predicted - images).square().mean()
    assert error < 0.3 * (images - images.mean((0, 2, 3), keepdim=True)).square().mean()

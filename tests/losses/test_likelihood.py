import pytest
import torch

from unveil.losses import LOGIT_MEAN, LOGIT_STD, logit_laplace, logit_laplace_mode


@pytest.mark.parametrize(("location", "log_scale"), [(0.0, 0.0), (0.8, -1.0), (-0.5, -2.0)])
def test_it_is_a_density(location: float, log_scale: float) -> None:
    """exp(-loss) has an integral of one over what can be; outside of 0.1 … 0.9 the loss is cut off, so little lies there."""
    x = torch.linspace(0.1, 0.9, 20001, dtype=torch.float64)
    prediction = torch.tensor([location, log_scale]).view(1, 2, 1, 1)
    density = torch.stack([(-logit_laplace(prediction, v.float().view(1, 1, 1, 1))).exp() for v in x[::50]])
    logit = torch.distributions.Laplace(torch.tensor(location), torch.tensor(log_scale).exp())
    ends = torch.logit(torch.tensor([0.1, 0.9]))
    within = (logit.cdf(ends[1]) - logit.cdf(ends[0])).item()
    assert torch.trapezoid(density.double(), x[::50]).item() == pytest.approx(within, rel=1e-3)


def test_the_nearer_the_better_and_the_surer() -> None:
    x = torch.full((1, 3, 2, 2), 0.3)
    location = torch.logit(x)
    sure, unsure = torch.full_like(x, -3.0), torch.zeros_like(x)
    right, wrong = location, location + 1
    assert logit_laplace(torch.cat([right, sure], 1), x) < logit_laplace(torch.cat([right, unsure], 1), x)
    assert logit_laplace(torch.cat([wrong, unsure], 1), x) < logit_laplace(torch.cat([wrong, sure], 1), x)
    torch.testing.assert_close(logit_laplace_mode(torch.cat([right, sure], 1)), x)


def test_the_ends_of_the_range_are_finite() -> None:
    """Black and white, as the recipe normalises them; and what only noise could be."""
    pixels = (torch.tensor([0.0, 1.0]) - LOGIT_MEAN) / LOGIT_STD
    torch.testing.assert_close(pixels, torch.tensor([0.1, 0.9]))
    prediction = torch.zeros(1, 2, 1, 4, requires_grad=True)
    loss = logit_laplace(prediction, torch.tensor([0.1, 0.9, -5.0, 7.0]).view(1, 1, 1, 4))
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert logit_laplace(prediction.bfloat16(), torch.full((1, 1, 1, 4), 0.5)).dtype == torch.float32

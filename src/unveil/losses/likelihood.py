"""Losses that are the likelihood of pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: Pixels of 0 … 1 lie in EPS … 1 - EPS: the logit of the ends would be infinite (Ramesh et al. 2021, appendix A.3).
EPS = 0.1
#: A normalisation by these mean and deviation maps them so.
LOGIT_MEAN, LOGIT_STD = -EPS / (1 - 2 * EPS), 1 / (1 - 2 * EPS)


def logit_laplace(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative logarithm of a logit-Laplace density, the mean over all values (Ramesh et al. 2021, appendix A.3).

    It is that of a value whose logit has a Laplace distribution: on (0, 1), as pixels are, and not on all numbers. It may be
    negative, for it is a density.

    Args:
        prediction: location and logarithm of the scale [B, 2 C, H, W], those of all channels first.
        target: pixels as `LOGIT_MEAN` and `LOGIT_STD` normalise them [B, C, H, W]; what no pixel can be is taken for the
            nearest that one can.
    """
    location, log_scale = prediction.float().chunk(2, dim=1)
    target = target.float().clamp(EPS, 1 - EPS)
    jacobian = torch.log(2 * target * (1 - target))
    return (jacobian + log_scale + (torch.logit(target) - location).abs() * (-log_scale).exp()).mean()


def logit_laplace_mode(prediction: Tensor) -> Tensor:
    """The picture that `prediction` [B, 2 C, H, W] is of, in the target's units [B, C, H, W]."""
    return functional.sigmoid(prediction.float().chunk(2, dim=1)[0])

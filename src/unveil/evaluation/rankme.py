"""RankMe: how many directions a representation really uses. Garrido, Balestriero, Najman, LeCun. ICML 2023. arXiv:2210.02885"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7


def rankme(features: Tensor) -> float:
    """The effective rank of a matrix of features (equation 1): exp of the entropy of its normalised singular values.

    Neither centred nor standardised, as in the paper; it is a smooth number between 1 and min(n, D), and only numbers
    taken with the same n can be compared.

    Args:
        features: [n,D], any floating type.
    """
    singular = torch.linalg.svdvals(features.detach().to("cpu", torch.float64))
    p = singular / singular.sum().clamp_min(EPSILON) + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))

"""Pure functions: prediction, target → scalar."""

from unveil.losses.chamfer import chamfer
from unveil.losses.classification import binary_cross_entropy, classification, cross_entropy
from unveil.losses.contrastive import contrast, contrast_with, negative_cosine, similarities
from unveil.losses.gathering import gathered
from unveil.losses.likelihood import LOGIT_MEAN, LOGIT_STD, logit_laplace, logit_laplace_mode
from unveil.losses.regression import mse, mse_of_linear

__all__ = [
    "LOGIT_MEAN",
    "LOGIT_STD",
    "binary_cross_entropy",
    "chamfer",
    "classification",
    "contrast",
    "contrast_with",
    "cross_entropy",
    "gathered",
    "logit_laplace",
    "logit_laplace_mode",
    "mse",
    "mse_of_linear",
    "negative_cosine",
    "similarities",
]

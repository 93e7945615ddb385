"""Pure functions: prediction, target → scalar."""

from unveil.losses.classification import binary_cross_entropy, classification, cross_entropy
from unveil.losses.regression import mse

__all__ = ["binary_cross_entropy", "classification", "cross_entropy", "mse"]

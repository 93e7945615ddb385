"""A batch → {"loss": scalar, …}."""

from unveil.objectives.masked import MaskedAutoencoder, Reconstruction
from unveil.objectives.objective import Objective
from unveil.objectives.supervised import Supervised
from unveil.objectives.two_tower import TwoTower

__all__ = ["MaskedAutoencoder", "Objective", "Reconstruction", "Supervised", "TwoTower"]

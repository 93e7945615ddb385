"""A batch → {"loss": scalar, …}."""

from unveil.objectives.agreement import Agreement, directions, spread
from unveil.objectives.dvae import DiscreteVAE
from unveil.objectives.masked import MaskedAutoencoder, Reconstruction
from unveil.objectives.objective import Objective
from unveil.objectives.supervised import Supervised

__all__ = [
    "Agreement",
    "DiscreteVAE",
    "MaskedAutoencoder",
    "Objective",
    "Reconstruction",
    "Supervised",
    "directions",
    "spread",
]

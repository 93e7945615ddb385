"""A batch → {"loss": scalar, …}."""

from unveil.objectives.dvae import DiscreteVAE
from unveil.objectives.masked import MaskedAutoencoder, Reconstruction
from unveil.objectives.objective import Objective
from unveil.objectives.supervised import Supervised

__all__ = ["DiscreteVAE", "MaskedAutoencoder", "Objective", "Reconstruction", "Supervised"]

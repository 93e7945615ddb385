"""A batch → {"loss": scalar, …}."""

from unveil.objectives.agreement import Agreement, directions, spread
from unveil.objectives.completion import Completion
from unveil.objectives.dvae import DiscreteVAE
from unveil.objectives.fused import AlignedAutoencoder, Contrast, Each, FusedAutoencoder
from unveil.objectives.masked import Masked, MaskedAutoencoder, Reconstruction
from unveil.objectives.objective import Objective
from unveil.objectives.supervised import Supervised
from unveil.objectives.two_tower import TwoTower

__all__ = [
    "Agreement",
    "AlignedAutoencoder",
    "Completion",
    "Contrast",
    "DiscreteVAE",
    "Each",
    "FusedAutoencoder",
    "Masked",
    "MaskedAutoencoder",
    "Objective",
    "Reconstruction",
    "Supervised",
    "TwoTower",
    "directions",
    "spread",
]

"""Make two views of a sample agree."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import Encoder
from unveil.layers import Momentum, Queue, in_groups
from unveil.losses import gathered
from unveil.masking import Mask
from unveil.objectives.objective import Objective


class Agreement(Objective):
    """What is made of one view says what is made of the other (MoCo, MoCo v3, SimSiam; with other parts BYOL).

    A query is `predictor(projector(encoder(view)))`; a key is `projector(encoder(other view))`, of a momentum encoder where there
    is one. Both are normalised to length 1, and no gradient reaches the key.

    Args:
        key: of the signal in the batch, which is [B,2,…] (see `Data.views`).
        encoder: its pooled features are what is learned.
        projector: features [B,width] → [B,D].
        loss: `(queries, keys) → scalar`, with a queue `(queries, keys, negatives)`; rows are normalised.
        predictor: [B,D] → [B,D]; None for none.
        momentum: progress → momentum of the encoder and projector that make the keys, which are moved before each step's first
            pass, as the published ones are; None: keys are of the encoder and projector themselves.
        queue: earlier steps' keys as negatives; this step's are put in after it. None for none.
        symmetric: each view is a query once; otherwise the first alone, with the key of the second.
        weight: of the loss of one query view; those of both are summed.
        groups: the batch norms of the encoders see so many parts of a micro-batch by themselves, those of the keys in another
            order (MoCo's shuffling); 1: all of it.
        contrasts: the loss tells samples from one another, see `Objective.contrasts`.
        stop_gradient: without a momentum encoder: False lets the gradient reach the keys, too, and the encoder collapses.
    """

    views = 2

    def __init__(
        self,
        key: str,
        encoder: Encoder,
        projector: nn.Module,
        loss: Callable[..., Tensor],
        *,
        predictor: nn.Module | None = None,
        momentum: Callable[[float], float] | None = None,
        queue: Queue | None = None,
        symmetric: bool = True,
        weight: float = 1.0,
        groups: int = 1,
        contrasts: bool = False,
        stop_gradient: bool = True,
    ):
        super().__init__()
        if momentum is None and not symmetric:
            raise ValueError("without a momentum encoder both views are encoded: they may as well both ask")
        self.key = key
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor
        self.momentum = None if momentum is None else Momentum(encoder=encoder, projector=projector)
        self.momentum_at = momentum
        self.queue = queue
        self.loss = loss
        self.symmetric = symmetric
        self.weight = weight
        self.groups = groups
        self.contrasts = contrasts
        self.stop_gradient = stop_gradient
        self._keys: list[Tensor] = []  # of the step's micro-batches so far; between steps there are none

    def extra_repr(self) -> str:
        return f"{self.key!r}, symmetric={self.symmetric}, weight={self.weight}, groups={self.groups}"

    @property
    def towers(self) -> dict[str, nn.Module]:
        return {self.key: self.encoder}

    def features(self, batch: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Projections and queries of the views that ask, keys of those that answer, in the order of the views, each [B,D]."""
        views = batch[self.key].unbind(1)
        projections = [self._through(self, view) for view in (views if self.symmetric else views[:1])]
        queries = projections if self.predictor is None else [self.predictor(z) for z in projections]
        if self.momentum is None:
            return projections, queries, [z.detach() if self.stop_gradient else z for z in projections]
        order = batch["seed"].argsort() if self.groups > 1 else None  # seeds are hashes: any order is as likely
        with torch.no_grad():
            keys = [self._through(self.momentum, view, order) for view in (views if self.symmetric else views[1:])]
        return projections, queries, keys

    def _through(self, networks: Any, x: Tensor, order: Tensor | None = None) -> Tensor:
        """A view through the encoder and the projector of this module or of its momentum encoder: [B,D]."""

        def pooled(part: Tensor) -> Tensor:
            return networks.encoder.pool(networks.encoder(part))

        return networks.projector(in_groups(pooled, x, self.groups if self.training else 1, order))

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the signal [B,2,…] and `seed` → {"loss"}, and what shows whether it collapses:

        `projection_std` and `projection_directions` of the micro-batch, see `spread` and `directions`; with a queue `own` and
        `others`, the mean similarities of a query with its key and with the queue's.
        """
        projections, *pairs = self.features(batch)
        queries, keys = ([functional.normalize(x.float(), dim=1) for x in features] for features in pairs)
        memory = [] if self.queue is None else [self.queue.keys]
        losses = [self.loss(query, key, *memory) for query, key in zip(queries, reversed(keys), strict=True)]
        answer = {"loss": self.weight * torch.stack(losses).sum()}
        with torch.no_grad():
            projection = functional.normalize(projections[0].float(), dim=1)
            answer |= {"projection_std": spread(projection), "projection_directions": directions(projection)}
            if self.queue is not None:
                answer["own"] = (queries[0] * keys[-1]).sum(1).mean()
                answer["others"] = queries[0].mean(0) @ self.queue.keys.mean(0)
        if self.training and torch.is_grad_enabled() and self.queue is not None:
            self._keys.append(torch.cat(keys).detach())
        return answer

    def started(self, fresh: Collection[str]) -> None:
        """Keys begin with the weights that queries have, where those loaded hold no momentum encoder."""
        if self.momentum is not None and any(name.startswith("momentum.") for name in fresh):
            self.momentum.equal(encoder=self.encoder, projector=self.projector)

    def before_step(self, progress: float) -> None:
        """The momentum encoder moves: so the keys of a step are of one network, whatever its micro-batches."""
        self._keys.clear()
        if self.momentum is not None and self.momentum_at is not None:
            self.momentum.follow(self.momentum_at(progress), encoder=self.encoder, projector=self.projector)

    def after_step(self, progress: float) -> None:
        """The step's keys enter the queue, those of all processes in the order of the batch."""
        if self.queue is not None and self._keys:
            self.queue.put(gathered(torch.cat(self._keys))[0])
        self._keys.clear()

    def statistics(self) -> dict[str, float]:
        """Of the queue: how full it is, and the spread of its keys (see `forward`)."""
        if self.queue is None:
            return {}
        return {"queue_filled": self.queue.filled, "queue_std": float(spread(self.queue.keys))}


def spread(x: Tensor) -> Tensor:
    """√D times the mean deviation of the coordinates of normalised rows [n,D]: 0 of one direction, about 1 of all.

    The measure of collapse of 2011.10566, section 4.1, where it is not multiplied by √D.
    """
    return x.float().std(0, correction=0).mean() * x.shape[1] ** 0.5


def directions(x: Tensor) -> Tensor:
    """Along how many directions normalised rows [n,D] differ: 1 when all lie on one line, at most min(n − 1, D).

    The participation ratio of the eigenvalues of their covariance, (Σλ)² / Σλ². A batch norm keeps `spread` up by throwing single
    samples to the other end of the line; this it cannot hide. The mean is taken away, for an untrained network's
    projections all lie near it, and differ all the same.
    """
    x = x.float() - x.float().mean(0)
    similarities = x @ x.T
    return similarities.trace().square() / similarities.square().sum().clamp(min=1e-12)

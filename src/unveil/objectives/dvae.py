"""Learn a vocabulary of visual words: a variational autoencoder whose latent variables are codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.encoders import VisualTokenizer
from unveil.layers import gumbel
from unveil.masking import Mask
from unveil.objectives.masked import Reconstruction
from unveil.objectives.objective import Objective


class DiscreteVAE(Objective):
    """Encode an image as codes, one for each place, and decode it from them (Ramesh et al. 2021, section 2.1).

    In training a place has a mixture of codes, drawn by the Gumbel-softmax relaxation (Jang et al. 2017): the colder its
    temperature, the nearer the mixture is to one code. The noise comes from the samples' seeds. The loss is the negative
    evidence bound for each value of the image, reconstruction + β KL, where the prior holds all codes alike likely.

    Args:
        key: of the signal in the batch.
        tokenizer: image → logits of codes.
        decoder: mixtures of codes → what `loss` takes as its prediction.
        loss: `(prediction, image) → scalar`, the mean over the image's values.
        picture: `prediction → image`, for looking at.
        temperature: at the end; it falls from 1.
        cooling: share of the training over which it does, along half a cosine.
        beta: weight of the divergence at the end; it grows from 0.
        beta_growth: share of the training over which it does, along half a cosine.
    """

    def __init__(
        self,
        key: str,
        tokenizer: VisualTokenizer,
        decoder: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        picture: Callable[[Tensor], Tensor],
        temperature: float,
        cooling: float,
        beta: float,
        beta_growth: float,
    ):
        super().__init__()
        self.key = key
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.loss = loss
        self.picture = picture
        self.temperatures, self.cooling = (1.0, temperature), cooling
        self.betas, self.beta_growth = (0.0, beta), beta_growth
        self.before_step(0.0)

    def extra_repr(self) -> str:
        return f"{self.key!r}, temperatures={self.temperatures}, betas={self.betas}"

    @property
    def towers(self) -> dict[str, nn.Module]:
        return {self.key: self.tokenizer.encoder}

    def before_step(self, progress: float) -> None:
        self.temperature = half_cosine(*self.temperatures, progress, self.cooling)
        self.beta = half_cosine(*self.betas, progress, self.beta_growth)

    def forward(self, batch: dict[str, Tensor], mask: Mask | None = None, state: Any = None) -> dict[str, Tensor]:
        """Batch with the signal and `seed` → {"loss", "reconstruction" and "kl" (nats a code), its parts, "temperature"}."""
        x = batch[self.key]
        tokens = self.tokenizer(x)
        logits = tokens.x.float()
        noise = gumbel(batch["seed"], logits.shape[1:])
        mixture = ((logits + noise) / self.temperature).softmax(-1)
        reconstruction = self.loss(self.decoder(tokens._replace(x=mixture)), x)
        log_q = logits.log_softmax(-1)
        kl = (log_q.exp() * log_q).sum(-1).mean() + math.log(self.tokenizer.vocab)
        share = logits.shape[1] / x[0].numel()  # codes of a value: the bound is that of a value
        return {
            "loss": reconstruction + self.beta * share * kl,
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            "temperature": torch.tensor(self.temperature, device=x.device),
        }

    def codes(self, batch: dict[str, Tensor]) -> Tensor:
        """The likeliest codes [B, N] int64."""
        return self.tokenizer.codes(batch[self.key])

    @property
    def vocab(self) -> int:
        """How many codes there are."""
        return self.tokenizer.vocab

    #: `reconstruct` has something to draw.
    drawable = True
    shows = "What was there, and what was decoded from its codes alone, the likeliest of each place."

    def reconstruct(self, batch: dict[str, Tensor], mask: Mask | None = None) -> Reconstruction:
        """Pictures of the input, and of what its likeliest codes are decoded to."""
        x = batch[self.key]
        tokens = self.tokenizer(x)
        chosen = functional.one_hot(tokens.x.argmax(-1), self.vocab).to(tokens.x.dtype)
        return Reconstruction(x, None, self.picture(self.decoder(tokens._replace(x=chosen))).to(x.dtype))


def half_cosine(start: float, end: float, progress: float, share: float) -> float:
    """From `start` to `end` over the first `share` of the training, then `end`."""
    way = min(1.0, progress / share) if share > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2

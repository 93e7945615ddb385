"""Attentive probing: a learned query attends to frozen tokens, and a linear layer answers.

Chen et al. Context autoencoder for self-supervised representation learning. IJCV 2024 (section 3.3); V-JEPA, Bardes et al.
TMLR 2024. It asks what the tokens hold; averaging them, as linear probing does, may already lose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unveil.errors import UserError
from unveil.evaluation.knn import one_hot
from unveil.evaluation.linear import cross_entropy, split
from unveil.heads import AttentiveHead
from unveil.tokens import Tokens

MIN_STEPS = 1000


def attentive_probe(
    x: Tensor,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    device: torch.device | str = "cpu",
    lrs: Sequence[float] = (1e-3,),
    epochs: int | None = None,
    batch: int = 32,
    weight_decay: float = 0.01,
    heads: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Probabilities of the queries' classes after training an attentive head on frozen tokens.

    AdamW, a twentieth of the steps to warm up, then half a cosine to zero. With several learning rates, the one with the
    lowest cross-entropy on a fifth of x held out of every class is taken, and everything is trained again with it.

    Args:
        x: [n,V,N,D], training tokens, on the CPU (float16 will do); every view is a sample of its own.
        labels: int64 [n], or multi-hot [n,classes].
        queries: [m,V,N,D]; probabilities are averaged over the views.
        classes: their number.
        device: where the head is trained.
        lrs: learning rates to choose from.
        epochs: passes over x; None for 40, or for as many as make 1,000 steps where samples are few: a probe that has
            not converged measures its own training, and makes every encoder look poor.
        batch: samples a step.
        weight_decay: AdamW's.
        heads: of the attention; None for one per 64 channels.
        seed: of the weights, the order and the split.

    Returns:
        The probabilities, float32 [m,classes], and the learning rate chosen.
    """
    if not lrs:
        raise UserError("--lrs: at least one learning rate is needed")
    target, multi_label = one_hot(labels, classes), labels.ndim == 2
    epochs = epochs or max(40, math.ceil(MIN_STEPS / math.ceil(len(x) / batch)))

    def train(rows: Tensor, lr: float) -> nn.Module:
        return _train(x, target, rows, lr, epochs, batch, weight_decay, heads, seed, multi_label, device)

    lr = lrs[0]
    if len(lrs) > 1:
        fit, held = split(labels, seed)
        losses = []
        for candidate in lrs if len(held) else lrs[:1]:
            p = _probabilities(train(fit, candidate), x, held, multi_label, device).clamp(1e-7, 1 - 1e-7)
            loss = -(target[held] * p.log()).sum(1)
            if multi_label:
                loss = loss - ((1 - target[held]) * (1 - p).log()).sum(1)
            losses.append(float(loss.mean()))
        lr = lrs[losses.index(min(losses))]
    head = train(torch.arange(len(x)), lr)
    return _probabilities(head, queries, torch.arange(len(queries)), multi_label, device), lr


def _train(
    x: Tensor,
    target: Tensor,
    rows: Tensor,
    lr: float,
    epochs: int,
    batch: int,
    weight_decay: float,
    heads: int | None,
    seed: int,
    multi_label: bool,
    device: torch.device | str,
) -> nn.Module:
    width = x.shape[-1]
    heads = heads or next(h for h in range(max(1, width // 64), 0, -1) if width % h == 0)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        head = AttentiveHead(width, target.shape[1], heads).to(device).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
        total = epochs * math.ceil(len(rows) / batch)
        warmup = max(1, total // 20)
        step = 0
        for _ in range(epochs):
            for chosen in rows[torch.randperm(len(rows), generator=generator)].split(batch):
                for group in optimizer.param_groups:
                    group["lr"] = lr * _schedule(step, warmup, total)
                views = x[chosen]
                logits = head(_tokens(views, device))
                loss = cross_entropy(
                    logits, target[chosen].repeat_interleave(views.shape[1], 0).to(device), multi_label
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
    return head.eval()


def _tokens(views: Tensor, device: torch.device | str) -> Tokens:
    """[B,V,N,D] → B·V sets of tokens. Frozen features carry their places in them; the head does not ask for coordinates."""
    x = views.flatten(0, 1).to(device).float()
    return Tokens(x, torch.zeros(*x.shape[:2], 1, dtype=torch.int64, device=x.device), (x.shape[1],))


def _schedule(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@torch.no_grad()
def _probabilities(
    head: nn.Module, x: Tensor, rows: Tensor, multi_label: bool, device: torch.device | str, batch: int = 64
) -> Tensor:
    out = []
    for chosen in rows.split(batch):
        views = x[chosen]
        logits = head(_tokens(views, device))
        p = logits.sigmoid() if multi_label else logits.softmax(1)
        out.append(p.unflatten(0, views.shape[:2]).mean(1).cpu())
    return torch.cat(out)

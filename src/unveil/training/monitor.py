"""What is measured while a run trains: RankMe and spread always, kNN when labels exist, validation accuracy when it is supervised; of
a tokenizer how it uses its codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unveil.data import Dataset, Manifest, evaluation_batches
from unveil.objectives import spread
from unveil.recipe import Loader, Recipe

TIMES = 10


class Monitor:
    """Measures ten times in a run (a very short one: at its end), on few enough samples that it costs a few percent of it.

    Pre-training: RankMe (2210.02885) and spread (`objectives.spread`) of mean-pooled embeddings of training samples, which show
    a collapse; what the objective has to say itself (`Objective.statistics`: of queues); with labels also
    kNN accuracy, gallery from the training split, queries from the validation split. Of pairs: `val_retrieval`, the mean of R@1
    from signal to text and back among so many held out. Of a tokenizer its codes' perplexity and the share of them that it uses,
    on the training samples. Supervised: top-1 on the validation split, one view each.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Manifest,
        held_out: Manifest | None,
        classes: list[str],
        total: int,
        batch: int,
        seed: int,
    ):
        self.data, self.classes, self.total = recipe.data, classes, total
        self.multi_label = train.multi_label or (held_out is not None and held_out.multi_label)
        self.every = max(1, total // TIMES if total >= 2 * TIMES else total)
        self.supervised = hasattr(recipe.objective, "logits")
        self.loader = Loader(batch=min(recipe.loader.batch, 32), workers=0)
        self.held_out = held_out if held_out is not None and len(held_out) and classes else None
        # Measured without a mask, a sample costs about as much as a masked step of it: half a percent of all samples
        # seen, each time.
        count = max(32, min(256, int(total * batch * 0.005)))
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        self.sample = train.select(chosen.tolist())
        self.queries = None
        self.pairs = None
        if recipe.data.text is not None and held_out is not None and held_out.captioned:
            self.pairs = _pairs(held_out, count, seed)
        if self.held_out is not None:
            some = torch.randperm(len(self.held_out), generator=torch.Generator().manual_seed(seed))
            self.queries = self.held_out.select(some[: count if not self.supervised else None].sort().values.tolist())

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.total

    @torch.no_grad()
    def measure(self, objective: nn.Module, device: torch.device) -> dict[str, float]:
        """Numbers for the log; the network is put back into training mode by the loop."""
        from unveil.evaluation import EVALUATORS, Subject, accuracy, codebook, extract, rankme, retrieval

        objective.eval()
        data = replace(self.data, clips=1, crops=1)

        def batches(manifest: Manifest) -> Any:
            dataset = Dataset(
                manifest, data, self.classes or None, training=False, seed=0, multi_label=self.multi_label
            )
            return evaluation_batches(dataset, self.loader, self.loader.batch)

        if self.supervised:
            if self.queries is None:
                return {}
            metrics = accuracy(objective, batches(self.queries), self.classes, device).metrics
            return {f"val_{name}": value for name, value in metrics.items() if name in ("top1", "map")}
        encoder: Any = objective.towers[data.signal.key]  # type: ignore[index]
        features = extract(encoder, batches(self.sample), data.signal.key, device).x
        numbers = {"rankme": rankme(features), "feature_std": float(spread(functional.normalize(features, dim=1)))}
        numbers |= objective.statistics()  # type: ignore[operator]
        if hasattr(objective, "codes"):
            signals = (batch[data.signal.key].flatten(0, 1) for batch in batches(self.sample))
            numbers |= codebook(objective, signals, data.signal.key, device).metrics
        if self.queries is not None:
            subject = Subject(None, encoder, data.signal.key, self.classes, device)
            metrics = EVALUATORS["knn"](subject, batches(self.sample), batches(self.queries)).metrics
            numbers["knn"] = metrics.get("top1", metrics.get("map", float("nan")))
        if self.pairs is not None:
            manifest, captions = self.pairs
            encode = data.text.encode  # type: ignore[union-attr]
            found = retrieval(objective, encode, batches(manifest), data.signal.key, captions, device).metrics
            numbers["val_retrieval"] = sum(value for name, value in found.items() if name.endswith("_r1")) / 2
        return numbers


def _pairs(held_out: Manifest, count: int, seed: int) -> tuple[Manifest, list[list[str]]] | None:
    """Some of the files held out, each once, with their captions; None where none says anything."""
    from unveil.data.captions import by_file

    rows, captions, _ = by_file(held_out)
    if not rows:
        return None
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    return held_out.select([rows[i] for i in chosen]), [captions[i] for i in chosen]

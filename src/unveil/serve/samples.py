"""What a run makes of its own samples: reconstructions, neighbours, answers. For its report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unveil.data.manifest import Manifest, Row, label_names
from unveil.data.streams import prepared, streams_in
from unveil.data.visual import kinds_of
from unveil.encoders import shown
from unveil.errors import UserError
from unveil.evaluation.features import pooled
from unveil.objectives import Reconstruction
from unveil.serve.curves import draw
from unveil.serve.figures import LARGEST, LONGEST, SMALLEST, data_uri, enlarged, filmstrip, player

if TYPE_CHECKING:
    from unveil.data.signal import Signal
    from unveil.recipe import Data
    from unveil.run import Run

COLLAPSED = 0.01  # perplexity of codes below which a code book serves nothing, as a share of what it could be
SECONDS = 60.0  # spent on neighbours at most: a report of a large network on a CPU is not to take an hour


class Sample(NamedTuple):
    """A row of a manifest, its number, and its streams {key: [C,*S]}, as the network takes them."""

    number: int
    row: Row
    x: dict[str, Tensor]

    def batch(self, device: torch.device) -> dict[str, Tensor]:
        """The streams, as a batch of one."""
        return {key: part[None].to(device) for key, part in self.x.items()}


class Unreadable(NamedTuple):
    """A row that could not be read, and why."""

    row: Row
    error: str


def manifest_of(run: Run, validation: bool = False) -> Manifest | None:
    """What the run was trained on, or what was held out, without the files found bad; None where the folder does not say."""
    file = run.path / ("validation.parquet" if validation else "manifest.parquet")
    if not file.is_file():
        return None
    manifest = Manifest.load(file)
    bad = {line["path"] for line in run.bad_files()}
    return manifest.select([path not in bad for path in manifest.column("path")])


def spread(manifest: Manifest, count: int) -> list[int]:
    """So many rows, evenly over the manifest: where it is sorted by class, many classes."""
    return sorted({int(i) for i in np.linspace(0, len(manifest) - 1, min(count, len(manifest))).round()})


def chosen(run: Run, manifest: Manifest, count: int) -> list[int]:
    """So many rows for pictures, evenly over the manifest, and of each kind of file as many, where there are several."""
    kinds = kinds_of(run.recipe.data.signal, manifest)
    there = [] if kinds is None else np.unique(kinds)
    if kinds is None or len(there) < 2:
        return spread(manifest, count)
    rows = [np.flatnonzero(kinds == kind) for kind in there]
    share = -(-count // len(rows))
    return sorted(
        {
            int(some[i])
            for some in rows
            for i in np.linspace(0, len(some) - 1, min(share, len(some))).round().astype(int)
        }
    )


def read(data: Data, manifest: Manifest, indices: list[int]) -> Iterator[Sample | Unreadable]:
    """The middle clip of rows, prepared as in evaluation."""
    for index in indices:
        row = manifest.row(index)
        try:
            x = data.signal.views(row, 1)[0]
        except (UserError, OSError) as error:
            yield Unreadable(row, str(error))
            continue
        yield Sample(index, row, prepared(data, x))


def reconstructions(run: Run, manifest: Manifest, count: int = 4) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """Film strips (of clouds: views from three sides; of sound: spectrograms) of input, masked (where something was), predicted, as
    {"picture", "rows", "name", "path", "tiny", "sounds"}, one for each stream of a sample; and what was not readable."""
    data = run.recipe.data
    streams = streams_in(data.signal)
    strips, unreadable = [], []
    for sample in read(run.recipe.data, manifest, chosen(run, manifest, count)):
        if isinstance(sample, Unreadable):
            unreadable.append(sample)
            continue
        batch = sample.batch(run.device) | {"seed": torch.tensor([sample.number], device=run.device)}
        with torch.no_grad():
            found = run.objective.reconstruct(batch)  # pyright: ignore[reportCallIssue]
        for key, seen in ({data.signal.key: found} if isinstance(found, Reconstruction) else found).items():
            stream, x = streams[key], sample.x[key]
            rows = {name: signal[0] for name, signal in seen._asdict().items() if signal is not None}
            sounds = _sounds(run, key, stream, x, {name: rows[name] for name in ("input", "predicted")})
            largest = LONGEST if sounds else LARGEST
            picture = filmstrip(list(rows.values()), data.mean, data.std, drawn=stream.drawn, largest=largest)
            tiny = min(stream.drawn(x, data.mean, data.std).shape[1:3]) < SMALLEST
            strips.append(
                {
                    "picture": data_uri(picture, "PNG" if tiny else "WEBP"),
                    "rows": list(rows),
                    "name": _name(sample.row),
                    "path": sample.row.path,
                    "tiny": tiny,
                    "sounds": sounds,
                }
            )
    return strips, unreadable


def _sounds(run: Run, key: str, stream: Signal, x: Tensor, rows: dict[str, Tensor]) -> list[tuple[str, str]]:
    """(what, a player's data URI): the sample itself, and what the network was to see and has guessed, made audible. None of what
    makes no sound."""
    heard = stream.heard
    first = player(heard(x))
    if first is None:
        return []
    encoder: Any = run.tower(key).encoder
    found = [("the sound itself", first)]
    for name, seen in rows.items():
        with torch.no_grad():
            wave = encoder.restored(seen[None])[0]
        guessed = player(heard(wave[:, : x.shape[-1]]))
        assert guessed is not None
        found.append((name, guessed))
    return found


def code_use(run: Run, manifest: Manifest, count: int = 128, seconds: float = SECONDS) -> dict[str, Any] | None:
    """How a tokenizer uses its codes on at most so many samples, in words and as a chart; None where none can be read."""
    from unveil.evaluation import codebook

    samples, begun = 0, time.monotonic()

    def signals() -> Iterator[Tensor]:
        nonlocal samples
        for sample in read(run.recipe.data, manifest, chosen(run, manifest, count)):
            if isinstance(sample, Sample):
                samples += 1
                yield sample.batch(run.device)[run.recipe.data.signal.key]
            if time.monotonic() - begun > seconds:
                return

    found = codebook(run.objective, signals(), run.recipe.data.signal.key, run.device)
    if not samples:
        return None
    counts = found.counts.sort(descending=True).values.tolist()
    places, met = sum(counts), sum(n > 0 for n in counts)
    chance = 1 - math.exp(-places / len(counts))  # of a code to be met, were all alike often
    warning = ""
    if found.perplexity < COLLAPSED * min(len(counts), places):
        warning = "That is a small part of them: the code book has collapsed, or is too young. A larger --beta spreads the codes."
    elif found.used < chance / 2:
        warning = f"Were all alike often, {chance:.0%} of them would have been met."
    return {
        "vocab": f"{len(counts):,}",
        "used": f"{met:,}",
        "samples": samples,
        "places": f"{places:,}",
        "perplexity": f"{found.perplexity:,.1f}",
        "warning": warning,
        "svg": draw([[(i + 1.0, float(n)) for i, n in enumerate(counts[: max(2, met)])]], over="code"),
    }


def neighbours(
    run: Run, manifest: Manifest, gallery: int = 160, queries: int = 6, top: int = 5, seconds: float = SECONDS
) -> tuple[list[list[dict[str, Any]]], int]:
    """For a few samples, those of a larger sample that are most similar (cosine of mean-pooled features).

    Returns:
        A row of cards for each query, itself first: {"picture", "name", "path", "label", "similarity"}; and how many samples
        were embedded: `gallery`, or what could be done in so many seconds.
    """
    key, encoder, data = run.tower()
    cards, features = [], []
    begun = time.monotonic()
    # In an order in which every beginning is spread over the whole manifest: time may run out.
    some = chosen(run, manifest, gallery)
    shuffled = torch.randperm(len(some), generator=torch.Generator().manual_seed(0)).tolist()
    for sample in read(run.recipe.data, manifest, [some[i] for i in shuffled]):
        if isinstance(sample, Unreadable):
            continue
        with torch.no_grad():
            tokens = encoder(shown(encoder, sample.batch(run.device), key))
            features.append(pooled(encoder, tokens, "mean")[0].float().cpu())
        cards.append(card(sample, data))
        if time.monotonic() - begun > seconds:
            break
    if len(cards) < 2:
        return [], len(cards)
    x = torch.nn.functional.normalize(torch.stack(features), dim=1)
    rows = []
    for query in range(min(queries, len(cards))):
        similarity = x @ x[query]
        similarity[query] = 2  # itself, first
        best = similarity.topk(min(top + 1, len(cards)))
        found = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        rows.append([{**cards[i], "similarity": value if i != query else None} for value, i in found])
    return rows, len(cards)


def answers(run: Run, manifest: Manifest, count: int = 12, top: int = 3) -> list[dict[str, Any]]:
    """Cards of samples with the run's likeliest classes: …, "label", "top" [(class, probability)], "correct"."""
    data, classes = run.recipe.data, run.classes
    multi_label = bool(run.info["flags"].get("multi_label"))
    rows = []
    for sample in read(run.recipe.data, manifest, chosen(run, manifest, count)):
        if isinstance(sample, Unreadable):
            rows.append({**_blank(sample.row), "error": sample.error, "top": [], "correct": None})
            continue
        with torch.no_grad():
            logits = run.objective.logits(sample.batch(run.device))[0].float()  # pyright: ignore[reportCallIssue]
        p = logits.sigmoid() if multi_label else logits.softmax(0)
        best = p.topk(min(top, len(classes)))
        found = [(classes[i], value) for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        true = label_names(sample.row.label)
        rows.append({**card(sample, data), "top": found, "correct": found[0][0] in true if true else None})
    return rows


def card(sample: Sample, data: Any) -> dict[str, Any]:
    """The middle one of a sample's pictures, small, with its names."""
    key, stream = next(iter(streams_in(data.signal).items()))  # of several the first: the picture of a clip
    pictures = stream.drawn(sample.x[key], data.mean, data.std)
    picture = data_uri(enlarged(pictures[len(pictures) // 2]), "JPEG")
    heard = (player(one.heard(sample.x[name])) for name, one in streams_in(data.signal).items())
    sound = next((uri for uri in heard if uri is not None), None)
    return {**_blank(sample.row), "picture": picture, "sound": sound, "error": ""}


def _blank(row: Row) -> dict[str, Any]:
    return {"picture": None, "sound": None, "name": _name(row), "path": row.path, "label": row.label}


def _name(row: Row) -> str:
    name = Path(row.path).name
    return name if row.start is None else f"{name} from {row.start:g} s"

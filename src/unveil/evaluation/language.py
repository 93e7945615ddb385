"""What a network whose images and texts share a space is asked in words: classes by their names, captions by their images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError
from unveil.evaluation.features import Features, evaluating, vectors
from unveil.evaluation.report import Report, summarise

if TYPE_CHECKING:
    from unveil.data.captions import Captions

#: A class is the mean of what these say of it (Radford et al. 2021, section 3.1.4); {} is its name.
TEMPLATES = (
    "a photo of a {}.",
    "a picture of the {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of many {}.",
    "a photo of a large {}.",
    "a photo of a small {}.",
)
RANKS = (1, 5, 10)
CHUNK = 256

#: Texts → token ids [n, L].
Encode = Callable[[Sequence[str]], Tensor]


def towers_of(objective: nn.Module, text: Captions | None, asked: str) -> tuple[Any, Encode]:
    """The objective, and how its texts are encoded; `UserError` where `asked` needs words and it has none."""
    if text is None or "text" not in getattr(objective, "towers", {}):
        raise UserError(f"{asked} needs a network that knows texts (clip, flip), and this run has none.")
    return objective, text.encode


@torch.no_grad()
def embed_texts(objective: Any, encode: Encode, texts: Sequence[str], device: torch.device | str) -> Tensor:
    """Texts in the shared space, of length one: float32 [n, D], on the CPU."""
    parts = []
    with evaluating(objective):
        for first in range(0, len(texts), CHUNK):
            parts.append(objective.embed("text", encode(texts[first : first + CHUNK]).to(device)).cpu())
    return torch.cat(parts)


def embed_signals(
    objective: Any, batches: Iterable[Mapping[str, Any]], key: str, device: torch.device | str
) -> Features:
    """Signals in the shared space: the mean over views, of length one, float32 [n, D], on the CPU."""
    found = vectors(objective, lambda look: objective.embed(key, look[key]), batches, [key], device)
    return found._replace(x=functional.normalize(found.x, dim=1))


def read_templates(file: Path | str | None) -> list[str]:
    """One a line, each with {} where the name goes; the built-in ones when there is no file.

    Raises:
        UserError: no such file, no line in it, or a line without {}.
    """
    if file is None:
        return list(TEMPLATES)
    lines = read_names(file, "--templates")
    for line in lines:
        if line.count("{}") != 1:
            raise UserError(f"--templates {file}: {line!r} has to say once, by {{}}, where the name of the class goes.")
    return lines


def read_names(file: Path | str, flag: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {file}: cannot be read as text in UTF-8 ({error}).") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError(f"{flag} {file}: holds no line.")
    return found


def names_for(labels: Sequence[str], file: Path | str | None) -> tuple[list[str], list[str]]:
    """What classes are called in the data, and in prompts.

    Args:
        labels: of the data, sorted.
        file: names, one a line: the labels themselves and perhaps more, or, line by line, what the sorted labels mean. None for the
            labels, "_" read as a space.

    Returns:
        the labels in the order of the classes (with those that only the file has), and their names.

    Raises:
        UserError: the file's names are neither.
    """
    if file is None:
        return list(labels), [label.replace("_", " ") for label in labels]
    names = read_names(file, "--classes")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--classes {file}: two classes have the name {twice!r}.")
    if set(labels) <= set(names):
        return names, [name.replace("_", " ") for name in names]
    if len(names) == len(labels):
        return list(labels), names
    strange = sorted(set(labels) - set(names))
    raise UserError(
        f"--classes {file}: the data have the class {strange[0]!r}, which is none of its {len(names)} names; nor are they as many as "
        f"the data's {len(labels)} classes, to name these in alphabetical order."
    )


def class_embeddings(
    objective: Any, encode: Encode, names: Sequence[str], templates: Sequence[str], device: torch.device | str
) -> Tensor:
    """Each class as the mean of its prompts' embeddings, of length one: [classes, D]."""
    prompts = [template.replace("{}", name) for name in names for template in templates]
    x = embed_texts(objective, encode, prompts, device)
    return functional.normalize(x.unflatten(0, (len(names), len(templates))).mean(1), dim=1)


def zero_shot(
    objective: Any,
    encode: Encode,
    batches: Iterable[Mapping[str, Any]],
    key: str,
    labels: Sequence[str],
    names: Sequence[str],
    templates: Sequence[str],
    device: torch.device | str = "cpu",
) -> Report:
    """Classify signals by their similarity to what the classes are called; nothing is learned.

    Args:
        objective: of two towers.
        encode: texts → ids.
        batches: of the evaluation loader, with labels.
        key: of the signal.
        labels, names: see `names_for`.
        templates: prompts.
        device: where the objective is.
    """
    classes = class_embeddings(objective, encode, names, templates, device)
    found = embed_signals(objective, batches, key, device)
    found.labelled()
    assert found.labels is not None
    scores = (float(objective.logit_scale.detach().exp()) * found.x @ classes.T).softmax(1)
    report = summarise("zero-shot", scores, found.labels, found.indices, labels, templates=list(templates))
    report.settings["names"] = list(names)
    report.bad = list(found.bad)
    return report


def ranks(signals: Tensor, texts: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the order of similarity the right answers stand, from 0.

    Args:
        signals: [n, D], of length one.
        texts: [m, D], of length one.
        owner: of each text, its signal's row, int64 [m].

    Returns:
        for each signal the rank, among all texts, of its first own one [n] (-1 for a signal without any), and for each text the rank
        of its signal among all [m]. Of equally similar ones, others stand before.
    """
    of_signal = torch.full((len(signals),), -1, dtype=torch.int64)
    of_text = torch.zeros(len(texts), dtype=torch.int64)
    for first in range(0, len(signals), CHUNK):
        similarity = signals[first : first + CHUNK] @ texts.T
        own = owner[None] == torch.arange(first, first + len(similarity))[:, None]
        best = similarity.masked_fill(~own, float("-inf")).amax(1, keepdim=True)
        rank = ((similarity >= best) & ~own).sum(1)
        of_signal[first : first + CHUNK] = torch.where(own.any(1), rank, -1)
    for first in range(0, len(texts), CHUNK):
        similarity = texts[first : first + CHUNK] @ signals.T
        mine = owner[first : first + CHUNK, None]
        other = torch.arange(len(signals))[None] != mine
        of_text[first : first + CHUNK] = ((similarity >= similarity.gather(1, mine)) & other).sum(1)
    return of_signal, of_text


def recalls(signals: Tensor, texts: Tensor, owner: Tensor, key: str = "image") -> dict[str, float]:
    """R@1, 5 and 10 both ways, as is usual where a signal has several texts (Karpathy, Fei-Fei 2015): from signal to text one of
    its own must be among the first k, from text to signal its own signal.

    Args:
        signals, texts, owner: see `ranks`.
        key: of the signal, for the names of the numbers.
    """
    of_signal, of_text = ranks(signals, texts, owner)
    of_signal = of_signal[of_signal >= 0]
    ways = {f"{key}_to_text": of_signal, f"text_to_{key}": of_text}
    return {f"{way}_r{k}": float((rank < k).float().mean()) for way, rank in ways.items() for k in RANKS}


def retrieval(
    objective: Any,
    encode: Encode,
    batches: Iterable[Mapping[str, Any]],
    key: str,
    captions: Sequence[Sequence[str]],
    device: torch.device | str = "cpu",
) -> Report:
    """Find texts by signals and signals by texts.

    Args:
        objective: of two towers.
        encode: texts → ids.
        batches: of the evaluation loader; each signal once.
        key: of the signal.
        captions: of each row of the loader's manifest, one or several.
        device: where the objective is.
    """
    found = embed_signals(objective, batches, key, device)
    rows: list[int] = found.indices.tolist()
    texts = [(place, text) for place, row in enumerate(rows) for text in captions[row]]
    owner = torch.tensor([place for place, _ in texts])
    x = embed_texts(objective, encode, [text for _, text in texts], device)
    metrics = recalls(found.x, x, owner, key) | {"samples": float(len(rows)), "texts": float(len(texts))}
    of_text = ranks(found.x, x, owner)[1].tolist()
    predictions = [
        {"index": rows[place], "caption": text, "rank": rank + 1}
        for (place, text), rank in zip(texts, of_text, strict=True)
    ]
    return Report("retrieval", metrics, [], [], None, predictions, bad=list(found.bad))

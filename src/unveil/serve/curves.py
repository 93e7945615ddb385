"""The lines of a log → line charts as SVG, coloured by the page's style sheet (light and dark)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH, HEIGHT = 320, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 24
MOST_POINTS = 400


class Chart(NamedTuple):
    """A chart: `svg` the drawing alone, `series` the names of its lines ("" where only one is possible), `last` their last
    values as text."""

    title: str
    svg: str
    series: list[str]
    last: list[str]


class Kind(NamedTuple):
    """What a chart shows: keys of the log's lines with their names, and how numbers are written."""

    title: str
    keys: dict[str, str]
    percent: bool = False


KINDS = (
    Kind("Loss", {"loss": "training", "val_loss": "validation"}),
    Kind("Accuracy", {"top1": "training", "val_top1": "validation"}, percent=True),
    Kind("Mean average precision", {"val_map": "validation"}, percent=True),
    Kind("kNN accuracy", {"knn": "validation"}, percent=True),
    Kind(
        "Parts of the loss: reconstruction",
        {"reconstruction": "training", "reconstruction_video": "picture", "reconstruction_audio": "sound"},
    ),
    Kind("Parts of the loss: contrast", {"inter": "between picture and sound", "intra": "between views of each"}),
    Kind("Parts of the loss: divergence of codes (nats)", {"kl": "training"}),
    Kind("Code book: perplexity", {"perplexity": "training"}),
    Kind("Code book: codes in use", {"codes_used": "training"}, percent=True),
    Kind("Temperature", {"temperature": "training"}),
    Kind("RankMe (effective rank)", {"rankme": "training"}),
    Kind(
        "Spread (0: one point, 1: everywhere)",
        {"projection_std": "projections", "feature_std": "features", "queue_std": "queue"},
    ),
    Kind("Directions of projections (1: one line)", {"projection_directions": "training"}),
    Kind("Similarity of a query", {"own": "with its key", "others": "with the queue"}),
    Kind("Queue filled", {"queue_filled": "training"}, percent=True),
    Kind("Learning rate", {"lr": "training"}),
    Kind("Norm of the gradient", {"gradient_norm": "training"}),
    Kind("Time spent waiting for data", {"data_wait": "training"}, percent=True),
    Kind("Samples per second", {"samples_per_s": "training"}),
)


def charts(log: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for everything known that the log holds, in a fixed order."""
    out = []
    for kind in KINDS:
        lines = {name: points(log, key) for key, name in kind.keys.items()}
        lines = {name: line for name, line in lines.items() if line}
        if lines:
            last = [number(line[-1][1], kind.percent) for line in lines.values()]
            names = list(lines) if len(kind.keys) > 1 else [""]
            out.append(Chart(kind.title, draw(list(lines.values()), kind.percent), names, last))
    return out


def points(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that hold a finite number under `key`."""
    found = []
    for line in log:
        value = line.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((float(line["step"]), float(value)))
    return found


def draw(lines: Sequence[Sequence[tuple[float, float]]], percent: bool = False, over: str = "step") -> str:
    """An SVG element. A long line is drawn faintly as it is and boldly as a running mean; a short one with dots.

    Args:
        lines: points (step, value), ascending in step.
        percent: write values as per cent.
        over: what the steps are.
    """
    xs = [x for line in lines for x, _ in line]
    ys = [y for line in lines for _, y in line]
    x_ticks = ticks(min(xs), max(xs), 5, whole=True)
    y_ticks = ticks(min(ys), max(ys), 4)
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y0, y1 = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for y in y_ticks:
        _, v = place(x0, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{v:.1f}" y2="{v:.1f}"/>')
        label = number(y, percent, step=y_ticks[1] - y_ticks[0])
        parts.append(f'<text x="{LEFT - 6}" y="{v + 3.5:.1f}" text-anchor="end">{label}</text>')
    for x in x_ticks:
        u, _ = place(x, y0)
        if x0 <= x <= x1:
            parts.append(f'<text x="{u:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{number(x)}</text>')
    for i, line in enumerate(lines):
        line = thinned(line)
        if len(line) > 40:
            parts.append(f'<polyline class="line raw s{i}" points="{_path(line, place)}"/>')
            line = smoothed(line)
        parts.append(f'<polyline class="line s{i}" points="{_path(line, place)}"/>')
        if len(line) <= 40:
            for x, y in line:
                u, v = place(x, y)
                tip = f"{over} {number(x)}: {number(y, percent)}"
                parts.append(
                    f'<circle class="dot s{i}" cx="{u:.1f}" cy="{v:.1f}" r="2.6"><title>{tip}</title></circle>'
                )
    parts.append("</svg>")
    return "".join(parts)


def _path(line: Sequence[tuple[float, float]], place: Any) -> str:
    return " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line)


def thinned(line: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its stretch; the last is kept as it is."""
    if len(line) <= most:
        return list(line)
    edges = [round(i * len(line) / most) for i in range(most + 1)]
    out = []
    for begin, end in itertools.pairwise(edges):
        part = line[begin:end]
        out.append((sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)))
    out[-1] = line[-1]
    return out


def smoothed(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of a centred window of a twentieth of the line, narrower towards the ends."""
    reach = max(1, len(line) // 40)
    out = []
    for i, (x, _) in enumerate(line):
        near = min(reach, i, len(line) - 1 - i)
        part = line[i - near : i + near + 1]
        out.append((x, sum(y for _, y in part) / len(part)))
    return out


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` round numbers whose first is ≤ low and whose last is ≥ high; always at least two."""
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
        low -= abs(low) * 0.1
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def number(value: float, percent: bool = False, step: float | None = None) -> str:
    """A number for people: 12,000 · 0.254 · 1.5e-05 · 12.3 %. With a step between ticks, no more digits than tell them apart."""
    if percent:
        digits = 1 if step is None else max(0, -math.floor(math.log10(step * 100) + 1e-9))
        return f"{100 * value:.{digits}f} %"
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) < 1e-3 or abs(value) >= 1e9:
        return f"{value:.3g}"
    if step is not None:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return f"{value:.4g}"

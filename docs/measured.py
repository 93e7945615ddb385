"""Fill the tables of docs/ from what the benchmarks measured: `python docs/measured.py`.

A table stands between `<!-- name -->` and `<!-- end of name -->`; its numbers are those of
benchmarks/results/ and benchmarks/profiles/.
"""

from __future__ import annotations

import re
import statistics
from typing import Any

from measured_accuracy import (
    group_norm,
    self_supervised_cifar10,
    self_supervised_flickr8k,
    self_supervised_ut_interaction,
    senses_clips,
    senses_digits,
    senses_mixture,
    senses_points,
    ut_interaction,
)
from measured_speed import (
    clips,
    data_wait,
    embedding,
    gpu,
    gpu_training,
    loading,
    scaling,
    scaling_exponents,
    search,
    start,
    steps,
    steps_saved,
)  # fmt: skip
from result_files import ROOT, results, source, table


def decode() -> str:
    found = results("decode")
    peers = {
        "pyav": "PyAV",
        "torchcodec": "torchcodec",
        "torchcodec, exact seeks": "torchcodec, exact seeks",
        "decord": "decord",
    }
    rows = []
    for video, jobs in found["videos"].items():
        for job in ("clip", "windows"):
            row = jobs[job]["libraries"]
            cells = [f"{row['unveil']['median_ms']:.0f} ms"]
            for peer in peers:
                low, high = row[peer]["times_unveil_quartiles"] if peer in row else (0, 0)
                cells.append(f"{row[peer]['times_unveil']:.2f} ({low:.2f}–{high:.2f})" if peer in row else "–")
            rows.append([video, job, *cells])
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("av", "torchcodec", "decord"))
    text = f"The peers' time as a multiple of unveil's in the same round: median (quartiles); above 1, unveil is faster. {versions}."
    return table(["video", "job", "unveil", *peers.values()], rows, found, text)


def crop() -> str:
    found = results("crop")
    rows = [
        [
            video,
            *(f"{ways[way]['times_whole']:.2f}, {ways[way]['mean_abs_difference']:.1f}" for way in ("part", "graph")),
        ]
        for video, ways in found["videos"].items()
    ]
    text = (
        "CPU time as a share of converting the whole frame and leaving the rest to torchvision; "
        "mean difference from that, in levels of 255."
    )
    return table(["video", "cut, convert, torchvision (what is done)", "FFmpeg's crop and scale"], rows, found, text)


def memory() -> str:
    found = results("memory")
    rows = [
        [
            name, f"{row['done']:,.0f} {row['unit']}", f"{row['mib_at_a_fifth']:.0f} → {row['mib_at_the_end']:.0f} MiB",
            f"{100 * row['growth']['total']:.1f} %", row["processes_left"],
        ]
        for name, row in found["results"].items()
    ]  # fmt: skip
    head = ["command", "work", "memory, from a fifth of the way to the end", "growth", "processes left"]
    return table(
        head, rows, found, "Parent and workers together, pages that they share counted once; growth of a fitted line."
    )


def startup() -> str:
    found = results("startup")
    rows = []
    for row in found["rows"]:
        few, many = row["seconds"].values()
        low, middle, high = statistics.quantiles([b - a for a, b in zip(few, many, strict=True)], n=4)
        rows.append(
            [f"`{row['verb']}`, {'the whole command' if row['what'] == 'process' else 'from Python'}",
             *(f"{median:.2f} s (± {spread / 2:.2f})" for median, spread in zip(row["median"], row["spread"], strict=True)),
             f"{middle:+.2f} s ({low:+.2f} to {high:+.2f})"]
        )  # fmt: skip
    head = ["until the first batch is asked for", "100 rows", "100,000 rows", "more, within a round"]
    return table(head, rows, found, "Median, half the range; of the differences median and quartiles.")


def backbones() -> str:
    found = results("backbones")
    rows = []
    for name, row in found["rows"].items():
        ways = row["forward"]
        cells = [_times(ways[way]) if way in ways else "–" for way in ("unveil", "folded", "folded, channels last")]
        trained = _times(row["as trained"]) if "as trained" in row else "–"
        gained = _gained(row["forward and backward"])
        rows.append([name, row["peer"], *cells, _times(row["forward and backward"]["unveil"]), trained, gained])
    head = [
        "network", "peer", "forward", "batch norms folded", "and channels last", "forward and backward",
        "channels last, both", "gained by it",
    ]  # fmt: skip
    text = (
        "Speed as a multiple of the peer's in the same round: median (quartiles); above 1, unveil is faster. "
        f"torch {found['versions']['torch']}, torchvision {found['versions']['torchvision']}."
    )
    return table(head, rows, found, text)


def _gained(ways: dict[str, Any]) -> str:
    """By channels last in training, ours and the peer's."""
    last = {name: ways.get(f"{name}, channels last") for name in ("unveil", "peer")}
    if not all(last.values()):
        return "–"
    rates = {name: last[name]["samples_per_s"] / ways[name]["samples_per_s"] for name in last}
    return f"{rates['unveil']:.2f} (peer {rates['peer']:.2f})"


def backbones_profile() -> str:
    found = results("backbones_profile")
    rows = []
    for name, row in found["rows"].items():
        total = row["seconds"]["unveil"]
        dear = [
            f"{kernel.removeprefix('aten::')} {100 * theirs['unveil']['seconds'] / total:.0f} %"
            for kernel, theirs in list(row["kernels"].items())[:4]
        ]
        same = f"{100 * row['share in kernels that both call equally often']:.1f} %"
        rows.append([name, f"{row['seconds']['peer'] / total:.2f}", same, ", ".join(dear)])
    head = [
        "network",
        "profiled speed",
        "in kernels that both call equally often",
        "the dearest, as shares of the step",
    ]
    return table(head, rows, found, "Forward and backward; speed as a multiple of the peer's.")


def _times(row: dict[str, Any]) -> str:
    low, high = row["quartiles"]
    return f"{row['times_peer']:.2f} ({low:.2f}–{high:.2f})"


def hog_share() -> str:
    found = results("hog_share")
    rows = []
    for name, row in found["rows"].items():
        low, high = (f"{100 * value:.2f}" for value in row["share"]["quartiles"])
        parts = [
            f"{100 * row['share_of_parts'][part]:.2f} %" for part in ("target of the masked", "target of all", "masks")
        ]
        cells = [row["shape"][0], f"{row['seconds']['target computed']['median']:.2f} s"]
        rows.append([name, *cells, *parts, f"{100 * row['share']['median']:.2f} % ({low}–{high})"])
    text = (
        f"Shares of a step. The parts are timed by themselves; the last column is the paired difference, median (quartiles) of "
        f"{found['rounds']} rounds. torch {found['versions']['torch']}."
    )
    return table(
        ["network", "batch", "step", "target", "were it of all patches", "masks", "step with − without"],
        rows,
        found,
        text,
    )


def flip_speed() -> str:
    found = results("flip_speed")
    whole = found["ratios"]["0"]
    rows = [
        [
            name,
            f"{row['samples_per_s']:.2f}",
            f"{row['speed']:.2f} ×",
            f"{found['paper_speed'][name]:g} ×" if name in found["paper_speed"] else "–",
            f"{row['peak_bytes'] / 2**20:.0f} MiB",
            f"{row['peak_bytes'] / whole['peak_bytes']:.2f}",
            f"{row['gmacs']:.2f}",
        ]
        for name, row in found["ratios"].items()
    ]
    head = ["ratio", "pairs a second", "speed", "in the paper", "peak memory of a step", "of that at 0", "GMACs a pair"]
    size = f"{found['size']}, {found['crop']}², batch {found['batch']}"
    text = f"{size}, {found['rounds']} rounds in turn; torch {found['versions']['torch']}."
    return table(head, rows, found, text)


TABLES = {
    "decoding.md": [decode, crop],
    "performance.md": [
        steps,
        steps_saved,
        clips,
        loading,
        data_wait,
        embedding,
        start,
        search,
        scaling,
        scaling_exponents,
        gpu,
        gpu_training,
        backbones,
        backbones_profile,
        hog_share,
        flip_speed,
    ],
    "reliability.md": [memory],
    "results.md": [
        group_norm,
        ut_interaction,
        self_supervised_cifar10,
        self_supervised_ut_interaction,
        self_supervised_flickr8k,
        senses_digits,
        senses_clips,
        senses_points,
        senses_mixture,
    ],
    "verbs/data.md": [startup],
}


def main() -> None:
    for page, tables in TABLES.items():
        path = ROOT / "docs" / page
        text = path.read_text()
        for made in tables:
            name = made.__name__
            if not source(name).exists():
                print(f"{page}: {name} was not measured yet; the page stays as it is")
                continue
            text, count = re.subn(
                f"<!-- {name} -->.*?<!-- end of {name} -->",
                lambda _, name=name, made=made: f"<!-- {name} -->\n\n{made()}\n\n<!-- end of {name} -->",
                text,
                flags=re.S,
            )
            if count != 1:
                raise SystemExit(f"{path} has {count} places for the table {name}")
        path.write_text(text)


if __name__ == "__main__":
    main()

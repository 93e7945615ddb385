"""The tables of docs/results.md."""

from __future__ import annotations

from statistics import mean, stdev

from result_files import results, table


def _score(values: list[float], number: bool = False) -> str:
    """Mean and deviation; `number`: and of how many."""
    if not values:
        return "–"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}" + (f" ({len(values)})" if number else "")


def group_norm() -> str:
    found = results("group_norm")
    batches = sorted({int(batch) for row in found["error"].values() for batch in row}, reverse=True)
    rows = [
        [norm, *(_score(row.get(str(batch), []), number=True) for batch in batches)]
        for norm, row in found["error"].items()
    ]
    settings = found["settings"]
    text = (
        f"Error on the test images (number of seeds). ResNet-{settings['size']} of width {settings['width']}, {settings['crop']}², "
        f"{settings['epochs']:g} epochs."
    )
    return table(["norm", *(f"batch {batch}" for batch in batches)], rows, found, text)


def ut_interaction() -> str:
    found = results("ut_interaction")
    ways = ("set1 → set2", "set2 → set1")
    rows = [
        [
            name,
            *(_score(row["top1"].get(way, [])) for way in ways),
            _score([score for way in ways for score in row["top1"].get(way, [])]),
        ]
        for name, row in found["systems"].items()
    ]
    return table(["system", *ways, "both"], rows, found, "Top-1; chance is 0.167.")


def self_supervised_cifar10() -> str:
    return _probed("self_supervised_cifar10", "Top-1 of 1,000 test images (number of seeds); chance is 0.100.")


def self_supervised_ut_interaction() -> str:
    return _probed("self_supervised_ut_interaction", "Top-1, both ways (number of trainings); chance is 0.167.")


def _probed(name: str, what: str) -> str:
    found = results(name)
    rows = [
        [
            system,
            _score(row["knn"], number=True),
            _score(row["linear"], number=True),
            f"{mean(row['rankme']):.1f}" if "rankme" in row else "–",
            f"{mean(row['seconds']):.0f}",
        ]
        for system, row in found["systems"].items()
    ]
    return table(["system", "kNN", "linear probe", "RankMe", "seconds"], rows, found, what)


def self_supervised_flickr8k() -> str:
    found = results("self_supervised_flickr8k")
    ways = ("image_to_text", "text_to_image")
    head = ["system", "steps", *(f"{way.replace('_to_', ' → ')} R@{k}" for way in ways for k in (1, 5, 10))]
    rows = [
        [name, f"{mean(row['steps']):.0f}", *(_score(row[f"{way}_r{k}"]) for way in ways for k in (1, 5, 10))]
        for name, row in found["systems"].items()
    ]
    seeds = max(len(row["steps"]) for row in found["systems"].values())
    return table(head, rows, found, f"200 images and their 1,000 captions; {seeds} seeds.")


def senses_points() -> str:
    return _contests("senses_points", "chance is 0.053.")


def senses_mixture() -> str:
    return _contests("senses_mixture", "chance is 0.100 and 0.167.")


def senses_digits() -> str:
    return _contests("senses_digits", "chance is 0.100.")


def senses_clips() -> str:
    return _contests("senses_clips", "chance is 0.5.")


def _contests(name: str, text: str) -> str:
    found = results(name)
    columns = ("scratch", "finetuned", "probe, untrained", "probe, pretrained")
    rows = [
        [
            contest,
            *(_score(row.get(column, []), number=True) for column in columns),
            f"{mean(row['rankme']):.1f}" if "rankme" in row else "–",
            f"{mean(row['seconds']):.0f}" if "seconds" in row else "–",
        ]
        for contest, row in found["contests"].items()
    ]
    head = [
        "task", "from scratch", "fine-tuned", "probe, untrained", "probe, pre-trained", "RankMe", "seconds of pre-training",
    ]  # fmt: skip
    return table(head, rows, found, f"Top-1 (number of trainings); {text}")

"""Sound, sound with sight, clouds of points, images with video: what pre-training on unlabelled files is worth.

    python benchmarks/senses.py points --data /data/psb_points
    python benchmarks/senses.py mixture --data /data/cifar10 --data /data/ut_interaction
    python benchmarks/senses.py digits --data /data/fsdd
    python benchmarks/senses.py clips --data /data/fight_surv

Each writes benchmarks/results/senses_NAME.json. A contest compares, on the same labels, a network trained from scratch with the same
network fine-tuned after pre-training on the training files without their labels, and a linear probe of the frozen encoder with one of
an untrained encoder. Both trainings have the same steps, batch, augmentation and grid of learning rates; each side's rate is chosen
once, on a part of the training labels of the first fold with seed 0, never on test files. The pre-training's own settings are fixed
beforehand. Stopped and started again it goes on; --hours bounds what is begun.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from contests import FACTORS, Contest, Labelled, fold, held, labelled, linked, steps
from decode import machine
from scored import Budget
from ut_interaction import HELD_OUT, SETS

from unveil.run import versions
from unveil.verbs.files import prepare


def points(data: list[Path], work: Path) -> dict[str, Contest]:
    """19 kinds of shapes, 14 of each to learn from."""
    network = {"size": "128x3x4", "points": 256, "neighbours": 8}
    return {
        "PSB points, all labels": Contest(
            "mae3d",
            [fold(work, "psb", labelled(data[0] / "train"), labelled(data[0] / "test"))],
            {**network, "group": 16, "decoder_depth": 2, **steps(40, 16), "optimizer.lr": 8e-3},
            {**network, **steps(12, 16)},
            8e-3,
        )
    }


def mixture(data: list[Path], work: Path) -> dict[str, Contest]:
    """Images and clips, in one pre-training; a sample of labelled images, and labelled clips, one way and the other in turn."""
    images, clips = data
    prepare(clips, out=work / "clips", short_side=64, quiet=True)
    whole = labelled(work / "clips")
    sets = {name: [entry for entry in whole if entry[1].name.startswith(name)] for name in SETS}
    train, test = labelled(images / "train"), labelled(images / "test")
    network = {"size": "nano", "crop": 48, "patch": 8, "frames": 8, "stride": 8}
    pretraining = {
        **network, "ratio": 0.9, "image_ratio": 0.75, "data_weight": (1, 10), **steps(6, 64), "optimizer.lr": 4e-3,
        "sample.repeats": 2,
    }  # fmt: skip
    plain = {"sample.mixup": 0.0, "sample.cutmix": 0.0, "sample.clips": 1, "sample.crops": 1, "drop_path": 0.1}
    beside = [linked(work / "files" / name / "clips", sets[name]) for name in sets]
    pictures = [fold(work, name, train, test, 50, beside=[clips]) for name, clips in zip(SETS, beside, strict=True)]
    moving = []
    for number, (here, there) in enumerate((SETS, SETS[::-1])):
        known = fold(
            work, f"{here}-clips", sets[here], sets[there], held_out=lambda file, _: _sequence(file) in HELD_OUT
        )
        unlabelled = [linked(work / "files" / here / "unlabelled", train), beside[number]]
        moving.append(known._replace(name=here, unlabelled=unlabelled))
    return {
        "CIFAR-10, 50 labels a class": Contest(
            "omnimae",
            pictures,
            pretraining,
            {**network, **plain, "settings": "images", **steps(20, 32)},
            8e-3,
            in_turn=True,
        ),
        "UT-Interaction": Contest(
            "omnimae", moving, pretraining, {**network, **plain, "flip": True, **steps(30, 12)}, 8e-3, in_turn=True
        ),
    }


def _sequence(file: Path) -> str:
    return file.name.split("_")[1].removeprefix("seq")


def digits(data: list[Path], work: Path) -> dict[str, Contest]:
    """Spoken digits with few labels: the official division, and speakers who are new, two to each seed."""
    train, test = labelled(data[0] / "train"), labelled(data[0] / "test")
    speakers = sorted({_speaker(file) for _, file in train})
    official = fold(work, "official", train, test, labels=20)
    strangers = []
    for number in range(3):
        new = speakers[2 * number : 2 * number + 2]
        strangers.append(
            fold(
                work,
                "without-" + "-".join(new),
                [entry for entry in train if _speaker(entry[1]) not in new],
                [entry for entry in train + test if _speaker(entry[1]) in new],
                20,
                # Rates are chosen on a speaker who is new, too.
                held_out=lambda file, _, last=[s for s in speakers if s not in new][-1]: _speaker(file) == last,
            )
        )
    pretraining = {
        **EARS, "decoder_depth": 2, "augment": False, **steps(16, 32), "optimizer.lr": 8e-3, "optimizer.weight_decay": 0.05,
    }  # fmt: skip
    gentle = {"augment": False, "drop_time": 0.0, "drop_frequency": 0.0, "blot_frames": 0, "blot_bins": 0}
    labels = {**EARS, **gentle, **steps(60, 32)}
    return {
        "20 labels a class": Contest("audiomae", [official], pretraining, labels, 8e-3),
        "new speakers, 20 labels a class of others": Contest(
            "audiomae", strangers, pretraining, labels, 8e-3, in_turn=True
        ),
    }


EARS = {
    "size": "nano", "seconds": 0.64, "rate": 8000, "bins": 64, "patch": 8, "mean": -9.9, "std": 5.3,
}  # fmt: skip


def _speaker(file: Path) -> str:
    return file.stem.split("_")[1]


def clips(data: list[Path], work: Path) -> dict[str, Contest]:
    """Fights in audible clips: five folds by sorted index, each with a seed of its own (--seeds 5); sound, sight, and both."""
    names = sorted((data[0] / "audible.txt").read_text().split())
    linked(work / "audible", [(name.partition("/")[0], data[0] / name) for name in names])
    prepare(work / "audible", out=work / "small", short_side=96, quiet=True)  # decoding would be most of the time
    audible = labelled(work / "small")
    folds = []
    for number in range(5):
        # Neighbours may be of one source: a fold is a stretch of each class.
        inside = {file for _, part in _by_class(audible).items() for file in _stretch(part, number, 5)}
        train = [entry for entry in audible if entry[1] not in inside]
        folds.append(fold(work, f"fold-{number}", train, [entry for entry in audible if entry[1] in inside]))
    network = {
        "size": "nano",
        "frames": 8,
        "stride": 4,
        "crop": 64,
        "patch": 16,
        "seconds": 2.0,
        "bins": 64,
        "audio_patch": 16,
    }
    pretraining = {**network, **steps(40, 16), "optimizer.lr": 8e-3, "sample.repeats": 4}
    labels = {
        **network, **steps(40, 16), "optimizer.kind": "adamw", "drop_path": 0.1, "sample.mixup": 0.0, "sample.repeats": 2,
        "sample.clips": 2,
    }  # fmt: skip
    uses = {"sound and sight": "both", "sight": "video", "sound": "audio"}
    return {
        name: Contest("avmae", folds, pretraining, labels, 8e-3, use=use, in_turn=True) for name, use in uses.items()
    }


def _by_class(files: Labelled) -> dict[str, list[Path]]:
    return {label: [file for own, file in files if own == label] for label, _ in files}


def _stretch(files: list[Path], number: int, count: int) -> list[Path]:
    return files[len(files) * number // count : len(files) * (number + 1) // count]


CONTESTS = {"points": points, "mixture": mixture, "digits": digits, "clips": clips}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=tuple(CONTESTS))
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the JSON file")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/senses"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0, help="no run is begun that would take longer in all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, budget = arguments.work / arguments.what, Budget(arguments.hours)
    contests = CONTESTS[arguments.what](arguments.data, work)
    found = {name: held(contest, work, name, arguments.seeds, budget) for name, contest in contests.items()}
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "complete": budget.allows(),
        "settings": {
            name: {
                "recipe": one.recipe,
                "pre-training": one.pretraining,
                "labelled": {**one.shared, **one.chosen},
                "rates": [one.lr * factor for factor in FACTORS],
            }
            for name, one in contests.items()
        },
        "contests": found,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"senses_{arguments.what}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

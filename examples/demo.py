"""The whole main job on built-in clips: pre-train without labels, fine-tune with few, evaluate, predict, embed, search, report.

    python examples/demo.py --out demo                      one pre-training, three seeds of the rest
    python examples/demo.py --out demo --pretrainings 3     three of everything

Compared on held-out clips whose digits were never seen: the network fine-tuned after pre-training, and the same network from
scratch with the same labels, steps and tuning; and an attentive probe of the frozen encoder, before and after pre-training.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import unveil
from unveil import verbs

PRESET = "demo"
LABELS = 40  # five of each kind


def main(out: Path, pretrainings: int, seeds: int) -> None:
    began = time.perf_counter()
    console = Console()
    data = out / "clips"
    verbs.builtin("moving-digits", out=data, labelled=LABELS)
    scores: dict[str, list[float]] = {}

    def note(row: str, run: str | Path, by: str, **more) -> None:
        report = unveil.evaluate(run, by=by, quiet=True, **more)
        scores.setdefault(row, []).append(report.metrics["top1"])
        console.print(f"[{time.perf_counter() - began:.0f} s] {row}: top-1 {report.metrics['top1']:.3f}")

    probe = {"data": data / "labelled", "test": data / "test"}
    first = None
    for number in range(pretrainings):
        console.rule(f"pre-training without labels, seed {number}")
        flags = {"data": data / "unlabelled", "preset": PRESET, "seed": number}
        untrained = unveil.pretrain("videomae", out=out / f"untrained-{number}", max_steps=0, quiet=True, **flags)
        run = unveil.pretrain("videomae", out=out / f"pretrained-{number}", **flags)
        first = first or run
        for seed in range(seeds):
            note("attentive probe, random weights", untrained.path, "attentive", seed=seed, **probe)
            note("attentive probe, pre-trained", run.path, "attentive", seed=seed, **probe)
            flags = {"data": data / "labelled", "preset": PRESET, "seed": 100 * number + seed, "val_fraction": 0.0}
            name = f"{number}-{seed}"
            console.rule(f"{LABELS} labels, seed {name}")
            scratch = unveil.train("videomae", out=out / f"scratch-{name}", quiet=True, **flags)
            note("from scratch", scratch.path, "accuracy", data=data / "test")
            tuned = unveil.finetune(run.path, out=out / f"finetuned-{name}", quiet=True, **flags)
            note("fine-tuned after pre-training", tuned.path, "accuracy", data=data / "test")

    assert first is not None
    clip = sorted((data / "test").rglob("*.mp4"))[0]
    console.rule(f"what is {clip.relative_to(data)}?")
    unveil.predict(out / "finetuned-0-0", clip, out=out / "prediction.json")
    console.rule("what is like it?")
    unveil.embed(out / "finetuned-0-0", data=data / "test", out=out / "index", overwrite=True, quiet=True)
    unveil.search(out / "index", clip, top=6, html=out / "neighbours.html")
    page = unveil.report(first, out=out / "report.html", quiet=True)

    table = Table("", "top-1", "runs", title="Motion of held-out clips (8 kinds; chance 0.125)")
    for row in ("from scratch", "fine-tuned after pre-training", *[name for name in scores if "probe" in name]):
        values = np.array(scores[row])
        table.add_row(
            row, f"{values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else 0:.3f}", str(len(values))
        )
    console.print(table)
    (out / "results.json").write_text(json.dumps(scores, indent=1) + "\n")
    console.print(f"open {page} and {out / 'neighbours.html'}; {(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--pretrainings", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    main(given.out, given.pretrainings, given.seeds)

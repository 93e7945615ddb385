"""The main job from Python, with a tiny network: a minute on a laptop.

python examples/python_api.py --out example
"""

import argparse
from pathlib import Path

import unveil
from unveil import verbs


def main(out: Path, steps: int) -> None:
    verbs.builtin("moving-digits", out=out / "clips", unlabelled=200, labelled=80, test=80)
    tiny = {"size": "debug", "frames": 8, "stride": 2, "crop": 32, "patch": 8, "max_steps": steps, "schedule.batch": 16}
    run = unveil.pretrain("videomae", data=out / "clips" / "unlabelled", out=out / "a", **tiny)
    tuned = unveil.finetune(run.path, data=out / "clips" / "labelled", out=out / "b", flip=False, max_steps=steps)
    report = unveil.evaluate(tuned, data=out / "clips" / "test", views="1x1")
    print(report.metrics)

    clip = next((out / "clips" / "test").rglob("*.mp4"))
    print(tuned.predict(clip, top=3))
    print(run.embed([clip]).shape)  # one row per window
    print(sum(p.numel() for p in run.encoder.parameters()), "parameters")  # a plain nn.Module


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("example"))
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    main(given.out, given.steps)

"""Draw the pictures of the docs: `make demo && .venv/bin/python docs/figures.py`.

Reconstructions are those of the demo's runs, curves are of what benchmarks/ measured.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from result_files import results, source

import unveil
from unveil.data import Manifest
from unveil.serve.figures import filmstrip
from unveil.serve.samples import Sample, read

DOCS = Path(__file__).parent


def reconstructions(demo: Path, out: Path, rows: tuple[int, ...] = (0,)) -> None:
    """Input, masked and predicted frames of held-out clips, by the demo's pre-trained run."""
    run: Any = unveil.load(demo / "pretrained-0", device="cpu")
    manifest = Manifest.scan([demo / "clips" / "test"], run.recipe.data.signal.suffixes)
    data, strips = run.recipe.data, []
    for sample in read(data, manifest, list(rows)):
        assert isinstance(sample, Sample)
        batch = sample.batch(run.device) | {"seed": torch.tensor([sample.number])}
        with torch.no_grad():
            pictures = run.objective.reconstruct(batch)
        strips.append(filmstrip([picture[0] for picture in pictures if picture is not None], data.mean, data.std))
    image = Image.fromarray(strips[0])
    image.save(out)


def scaling(found: dict[str, Any], out: Path) -> None:
    """What a step costs as one thing grows: seconds, operations and memory as multiples of the smallest one's."""
    axes = found["axes"]
    figure = Figure(figsize=(3.2 * len(axes), 3), layout="constrained")
    for axis, (name, row) in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes.items(), strict=True):
        points = list(row["points"].values())
        sizes = [point[row["against"]] for point in points]
        for what, label, style in (
            ("median", "time", "o-"),
            ("flops", "operations", "s--"),
            ("peak_bytes", "memory", "^:"),
        ):
            if what in points[0]:
                axis.loglog(
                    sizes, [point[what] / points[0][what] for point in points], style, label=label, markersize=4
                )
        ticks = list(row["points"]) if name == "size" else [f"{size:,}" for size in sizes]
        axis.set_xticks(sizes, ticks, fontsize=8)
        axis.set_xticks([], minor=True)
        axis.set_title(f"by {name}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    # Without a date and with fixed ids: the same numbers are the same file.
    with rc_context({"svg.hashsalt": "unveil"}):
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo")
    if len(sys.argv) > 1 or folder.exists():
        reconstructions(folder, DOCS / "reconstructions.png")
    else:
        print(f"{folder}/ is not there: the reconstructions stay as they are")
    if source("scaling").exists():
        scaling(results("scaling"), DOCS / "scaling.svg")

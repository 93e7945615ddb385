"""Draw the pictures of the docs from the demo's run folders: `make demo && .venv/bin/python docs/figures.py`."""

import sys
from pathlib import Path

import torch
from PIL import Image

import unveil
from unveil.data import Manifest
from unveil.serve.figures import filmstrip
from unveil.serve.samples import Sample, read

DOCS = Path(__file__).parent


def reconstructions(demo: Path, out: Path, rows: tuple[int, ...] = (0,)) -> None:
    """Input, masked and predicted frames of held-out clips, by the demo's pre-trained run."""
    run = unveil.load(demo / "pretrained-0", device="cpu")
    manifest = Manifest.scan([demo / "clips" / "test"], run.recipe.data.signal.suffixes)
    data, strips = run.recipe.data, []
    for sample in read(run, manifest, list(rows)):
        assert isinstance(sample, Sample)
        batch = {data.signal.key: sample.x[None], "seed": torch.tensor([sample.number])}
        with torch.no_grad():
            pictures = run.objective.reconstruct(batch)
        strips.append(filmstrip([picture[0] for picture in pictures if picture is not None], data.mean, data.std))
    image = Image.fromarray(strips[0])
    image.save(out)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo")
    reconstructions(folder, DOCS / "reconstructions.png")

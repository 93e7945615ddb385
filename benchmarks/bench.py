"""All measurements of docs/performance.md, one after the other, then its tables and figures: `make bench`.

    python benchmarks/bench.py [--only search …] [--tiny]

Each row is a script of benchmarks/ that writes benchmarks/results/NAME.json, replaced when the row has ended well. A row that fails is
named at the end, and the status is 1; the others are measured all the same. With --tiny everything runs at small sizes, into a
folder that is thrown away.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


class Row(NamedTuple):
    """A script, what it measures, and what makes it small."""

    what: str
    tiny: tuple[str, ...] = ("--tiny",)


ROWS = {
    "steps": Row("pre-training steps next to other packages', and what masked patches save (rows 1, 2, 10)"),
    "clips": Row("training clips next to torchcodec, decord and PyAV (row 3, 4)"),
    "loading": Row("what the loader delivers (row 5)"),
    "data_wait": Row("how long training waits for data (row 6)"),
    "embedding": Row("a folder of clips into embeddings (row 7)"),
    "start": Row("until a command answers (row 8)"),
    "search": Row("exact search next to faiss (row 9)"),
    "scaling": Row("cost by clip length, side, batch, network and files (row 11)"),
    "backbones": Row("networks next to torchvision's and timm's (row 12)", ("--only", "resnet", "--rounds", "1")),
    "gpu": Row("steps on a CUDA card", ("--device", "cpu", "--tiny")),
}


def measured(name: str, row: Row, folder: Path, tiny: bool) -> bool:
    """Whether the row ended well; only then is there a new JSON file."""
    script = ROOT / "benchmarks" / f"{name}.py"
    new, kept = folder / f".{name}.new.json", folder / f"{name}.json"
    new.unlink(missing_ok=True)  # scripts go on with a file that is there
    command = [sys.executable, str(script), "--out", str(new), *(row.tiny if tiny else ())]
    print(f"== {name}: {row.what}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command, cwd=ROOT).returncode
    print(f"== {name}: status {status}, {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    if status or not new.exists():
        new.unlink(missing_ok=True)
        return False
    new.replace(kept)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="these rows")
    parser.add_argument("--tiny", action="store_true", help="does everything run? Nothing is kept.")
    asked = parser.parse_args()
    names = asked.only or [name for name in ROWS if name != "gpu" or asked.tiny or torch.cuda.is_available()]
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = Path(thrown_away) if asked.tiny else RESULTS
        failed = [name for name in names if not measured(name, ROWS[name], folder, asked.tiny)]
    if not asked.tiny:
        for script in ("measured.py", "figures.py"):
            if subprocess.run([sys.executable, str(ROOT / "docs" / script)], cwd=ROOT).returncode:
                failed.append(f"docs/{script}")
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()

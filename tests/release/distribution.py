"""Build sdist and wheel, look into them, and do the README's main job with the installed wheel: `make wheel-test`.

    python tests/release/distribution.py [--python python3.12] [--out dist]

Needs the package `build`. The wheel is installed into an environment of its own (5 GB, temporary), outside the checkout, with
constraints.txt; the job runs in an empty folder, on built-in clips, at debug size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from environment import CONSTRAINTS, ROOT, alone, make, parts, project

SMALL = (
    "--size debug --frames 4 --crop 32 --patch 8 --schedule.batch 4 --loader.batch 4 --loader.workers 1 --max-steps 3"
)
JOB = [
    "unveil data builtin moving-digits --out made --unlabelled 8 --labelled 16 --test 8",
    "unveil data check made/unlabelled",
    "unveil recipes",
    "unveil recipes videomae --size L",
    f"unveil pretrain videomae --data made/unlabelled --out runs/a --device cpu {SMALL}",
    f"unveil finetune runs/a --data made/labelled --out runs/b --device cpu {SMALL}",
    f"unveil train vit --data made/labelled --out runs/scratch --device cpu {SMALL}",
    "unveil evaluate runs/b --data made/test",
    "unveil evaluate runs/a --by knn --data made/labelled --test made/test",
    "unveil predict runs/b made/test --out rows.json",
    "unveil embed runs/a --data made/unlabelled --out index",
    "unveil search index QUERY --top 3 --html hits.html",
    "unveil report runs/a",
    "unveil doctor",
]
#: What the job leaves, besides what it prints.
LEFT = [
    "made/unlabelled/manifest.parquet", "runs/a/weights.safetensors", "runs/b/weights.safetensors",
    "runs/scratch/weights.safetensors", "runs/b/evaluate", "rows.json", "index", "hits.html", "runs/a/report.html",
]  # fmt: skip


def build(out: Path) -> tuple[Path, Path]:
    """sdist, and the wheel that is made from that sdist."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def tracked(*below: str) -> set[str]:
    shown = subprocess.run(["git", "ls-files", *below], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(shown.stdout.split("\n")) - {""}


def look_into(sdist: Path, wheel: Path) -> None:
    """Every file of src/unveil is in the wheel and nothing else is; the sdist has what builds and tests it.

    Raises:
        AssertionError: something is missing, too much, or the metadata are not pyproject.toml's.
    """
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (about,) = (name.partition("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(file.read(f"{about}/METADATA").decode())
    ours = {name.removeprefix("src/") for name in tracked("src/unveil")}
    mine = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == ours | mine, f"in the wheel, too much or missing: {sorted(names ^ (ours | mine))}"
    assert {"unveil/py.typed", "unveil/serve/templates/report.html.j2"} <= names
    declared = project()
    assert metadata["License-Expression"] == declared["license"]
    assert metadata["Requires-Python"] == declared["requires-python"]
    needed = {parts(line)[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert needed == {parts(line)[0] for line in declared["dependencies"]}

    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()} - {""}
    expected = {*tracked("src", "tests", "docs", "examples", "benchmarks"), *tracked("*.md", "LICENSE", "Makefile")}
    expected |= {"pyproject.toml", "constraints.txt"}
    assert expected <= inside, f"not in the sdist: {sorted(expected - inside)}"
    more = {name for name in inside - expected - {"PKG-INFO", ".gitignore"} if not name.startswith(".ci")}
    assert not more, f"in the sdist, and in no commit: {sorted(more)}"
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e3:.0f} kB; {sdist.name}: {len(inside)} files")


def do_the_job(wheel: Path, python: str) -> None:
    """Install the wheel into an empty environment and run the main job in an empty folder.

    Raises:
        AssertionError: the package comes from elsewhere, or the job left less than it should.
        CalledProcessError: a command failed.
    """
    with tempfile.TemporaryDirectory(prefix="unveil-wheel-") as temporary:
        interpreter = make(Path(temporary) / "venv", python, [str(wheel)], CONSTRAINTS)
        here = Path(temporary) / "here"
        here.mkdir()
        say = "import json, unveil; print(json.dumps([unveil.__file__, unveil.__version__]))"
        shown = subprocess.run([interpreter, "-c", say], cwd=here, env=alone(), check=True, capture_output=True)
        where, version = json.loads(shown.stdout)
        assert Path(where).is_relative_to(Path(temporary) / "venv"), f"unveil came from {where}"
        assert version == project()["version"]
        for line in JOB:
            print(f"$ {line}", flush=True)
            words = line.replace("QUERY", str(min((here / "made").glob("test/*/*.mp4"), default=""))).split()
            subprocess.run([interpreter.parent / words[0], *words[1:]], cwd=here, env=alone(), check=True)
        missing = [name for name in LEFT if not (here / name).exists()]
        assert not missing, f"the job did not leave {missing}"
    print(f"{wheel.name} does the main job, installed alone on {python}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, help="keep sdist and wheel here (an empty folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unveil-dist-") as folder:
        built = build(options.out or Path(folder))
        look_into(*built)
        do_the_job(built[1].resolve(), options.python)

"""The default suite in an environment of its own: another Python, or the lowest versions that pyproject.toml declares.

    python tests/release/environment.py --python python3.13
    python tests/release/environment.py --python python3.11 --lowest tests/training    # what follows is pytest's

The environment (5 GB) is made in a temporary folder and removed; `--keep FOLDER` makes it there and leaves it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


def project() -> dict:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parts(requirement: str) -> tuple[str, str]:
    """A requirement's name, normalised, and the version after its ">=".

    Raises:
        ValueError: it has no lowest version, or says more than that.
    """
    found = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\d.]+)(?:;.*)?", requirement.replace(" ", ""))
    if not found:
        raise ValueError(f"{requirement!r} in pyproject.toml is not NAME>=VERSION")
    return re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def lowest() -> dict[str, str]:
    """Direct dependency → the lowest version that is declared."""
    return dict(map(parts, project()["dependencies"]))


def extra(name: str) -> dict[str, str]:
    """What an extra adds → the lowest version that is declared; an extra that names others of the project has theirs, too."""
    found: dict[str, str] = {}
    for line in project()["optional-dependencies"][name]:
        if own := re.fullmatch(rf"{project()['name']}\[([\w,-]+)\]", line):
            for other in own[1].split(","):
                found |= extra(other)
        else:
            found |= dict([parts(line)])
    return found


def make(folder: Path, python: str, install: list[str], constraints: Path) -> Path:
    """A new environment with what pip is asked to install; returns its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    interpreter = folder / "bin" / "python"
    subprocess.run([interpreter, "-m", "pip", "install", "-q", "-c", constraints, *install], check=True)
    return interpreter


def installed(interpreter: Path) -> dict[str, str]:
    """Distribution → version."""
    shown = subprocess.run(
        [interpreter, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True
    )
    return {re.sub(r"[-_.]+", "-", row["name"]).lower(): row["version"] for row in json.loads(shown.stdout)}


def alone() -> dict[str, str]:
    """This process's variables without those that would let another checkout in."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def main(python: str, floors: bool, keep: Path | None, more: list[str]) -> int:
    """Make the environment, say what is in it, run the suite; returns pytest's exit status."""
    with tempfile.TemporaryDirectory(prefix="unveil-environment-") as temporary:
        Path(temporary).chmod(0o755)  # tests become users without rights, who import from it, too
        constraints = CONSTRAINTS
        if floors:
            constraints = Path(temporary) / "lowest.txt"
            constraints.write_text("".join(f"{name}=={version}\n" for name, version in lowest().items()))
        interpreter = make(keep or Path(temporary) / "venv", python, ["-e", f"{ROOT}[dev]"], constraints)
        versions = installed(interpreter)
        shown = subprocess.run([interpreter, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        print(shown, *(f"{name} {versions[name]}" for name in lowest()), sep=", ", flush=True)
        # Old packages and the newer ones that they need warn of each other; that is not ours to mend.
        lenient = ["-W", "default::DeprecationWarning"] * floors
        return subprocess.run([interpreter, "-m", "pytest", *lenient, *more], cwd=ROOT, env=alone()).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--lowest", action="store_true", help="the lowest declared versions of all direct dependencies")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options, rest = parser.parse_known_args()
    sys.exit(main(options.python, options.lowest, options.keep, rest))

"""pyproject.toml, constraints.txt and the package agree."""

import ast
import re
import sys
import tomllib

import pytest
from environment import CONSTRAINTS, ROOT, extra, lowest, parts, project

import unveil


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def pinned() -> dict[str, str]:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_the_version_is_the_package_s():
    assert project()["version"] == unveil.__version__


def test_what_is_installed_is_pinned_and_not_below_the_lowest():
    needed = lowest() | extra("dev") | extra("docs") | extra("release")
    missing = sorted(needed.keys() - pinned().keys())
    assert missing == []
    assert [name for name in needed if numbers(pinned()[name]) < numbers(needed[name])] == []


def test_every_requirement_says_its_lowest_version():
    for name in project()["optional-dependencies"]:
        assert all(numbers(version) for version in extra(name).values())
    assert {"onnx", "huggingface-hub"} < extra("dev").keys()
    with pytest.raises(ValueError, match="not NAME>=VERSION"):
        parts("torch")


def test_declared_pythons_begin_with_the_lowest():
    declared = [re.search(r":: (3\.\d+)$", line) for line in project()["classifiers"]]
    versions = [found[1] for found in declared if found]
    assert project()["requires-python"] == f">={versions[0]}"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["pyright"]["pythonVersion"] == versions[0]
    assert tools["ruff"]["target-version"] == "py" + versions[0].replace(".", "")


def test_all_that_the_package_imports_is_declared():
    """At the top of its modules: an optional package is imported where it is used."""
    declared = {"PIL": "pillow", "sklearn": "scikit-learn"}
    found = set()
    for path in (ROOT / "src" / "unveil").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    foreign = found - set(sys.stdlib_module_names) - {"unveil"}
    assert "torch" in foreign
    assert [name for name in sorted(foreign) if declared.get(name, name) not in lowest()] == []

"""The documentation site, by Sphinx: README, docs/ as they are, and the API from the docstrings. `make docs`.

    python docs/site/build.py                # writes build/site/index.html; a warning is an error

The pages are copied as they stand, at their own places, into build/site-source, so that their links to each other hold; the
pages of the API are written there and in no commit.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

import unveil
from unveil import recipes

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"

#: What is read as it stands, and in this order: caption → pages, without their suffix. Others of docs/ follow.
GUIDES = {
    "Verbs": [
        f"docs/verbs/{name}"
        for name in (
            "pretrain", "finetune", "train", "evaluate", "predict", "embed", "search", "import", "report", "data", "others",
        )
    ],
    "Understanding": [f"docs/{name}" for name in ("reading-order", "design", "glossary", "decoding")],
    "Measured": [f"docs/{name}" for name in ("results", "reliability")],
    "Project": ["examples/README", "CONTRIBUTING", "CHANGELOG"],
}  # fmt: skip
#: In the order in which data flow; what is not named comes after them.
FLOW = (
    "data", "tokens", "masking", "layers", "encoders", "decoders", "heads", "targets", "losses", "objectives", "training",
    "evaluation", "serve", "weights",
)  # fmt: skip
#: Modules that are no package and offer something beside `unveil` itself: module → its names.
MODULES = {
    "job": "Training",
    "fitting": "fit, Fitted",
    "sizes": "parameters, gmacs, activation_bytes",
    "state_dict": "read_state_dict",
}


def stage() -> None:
    """Copy README, guides and pictures to where the site is made from."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    pages = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "examples/README")]
    for path in [*pages, *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.png")]:
        target = SOURCE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def guides() -> dict[str, list[str]]:
    """`GUIDES`, and the pages that it does not name at the end of their group."""
    groups = {caption: list(pages) for caption, pages in GUIDES.items()}
    named = {page for pages in groups.values() for page in pages}
    for path in sorted(SOURCE.glob("docs/**/*.md")):
        page = path.relative_to(SOURCE).with_suffix("").as_posix()
        if page not in named:
            groups["Verbs" if page.startswith("docs/verbs/") else "Understanding"].append(page)
    return groups


def packages() -> list[str]:
    """Public packages of the library in the order of their pages, without `recipes` and `verbs`."""
    found = [module.name for module in pkgutil.iter_modules(unveil.__path__) if module.ispkg]
    found = [name for name in found if name not in ("recipes", "verbs")]
    return sorted(found, key=lambda name: (FLOW.index(name) if name in FLOW else len(FLOW), name))


def write_api() -> list[str]:
    """Write one page for each package and recipe, with all that its `__all__` names; returns the pages."""
    pages = {"api/unveil": front()}
    verbs = [name for name in unveil.__all__ if hasattr(importlib.import_module("unveil.verbs"), name)]
    pages["api/verbs"] = page("unveil.verbs", leave_out=verbs)
    inside = "\n".join(f"recipes/{name}" for name in recipes.names())
    pages["api/recipes"] = page("unveil.recipes") + f"\n```{{toctree}}\n:caption: Systems\n\n{inside}\n```\n"
    for name in packages():
        pages[f"api/{name}"] = page(f"unveil.{name}")
    for name, offered in MODULES.items():
        pages[f"api/{name}"] = page(f"unveil.{name}", offered)
    for name in recipes.names():
        (SOURCE / "api" / "recipes").mkdir(parents=True, exist_ok=True)
        (SOURCE / "api" / "recipes" / f"{name}.md").write_text(page(f"unveil.recipes.{name}"), encoding="utf-8")
    for name, text in pages.items():
        (SOURCE / f"{name}.md").write_text(text, encoding="utf-8")
    return list(pages)


def front() -> str:
    """The page of `unveil` itself, whose names are those of other modules; in the order in which it lists them."""
    lines = [".. automodule:: unveil", ""]
    for name in unveil._WHERE:
        given = getattr(unveil, name)
        if not isinstance(given, type):
            lines += [f".. autofunction:: unveil.{name}", ""]
        elif issubclass(given, Exception):
            lines += [f".. autoexception:: unveil.{name}", ""]
        else:
            lines += [f".. autoclass:: unveil.{name}", "   :members:", ""]
    return "\n".join(["# unveil", "", "```{eval-rst}", *lines, "```", ""])


def page(module: str, members: str = "", leave_out: list[str] | None = None) -> str:
    options = [f":members: {members}".rstrip(), ":member-order: bysource"]
    if leave_out:
        options.append(f":exclude-members: {', '.join(leave_out)}")
    lines = [f".. automodule:: {module}", *(f"   {option}" for option in options)]
    return "\n".join([f"# {module}", "", "```{eval-rst}", *lines, "```", ""])


def main() -> int:
    """Make the site; returns Sphinx's exit status."""
    stage()
    captions = {**guides(), "API": write_api()}
    tables = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])
        for caption, pages in captions.items()
    ]
    home = SOURCE / "README.md"
    home.write_text("\n\n".join([home.read_text(encoding="utf-8"), *tables]) + "\n", encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    conf = str(Path(__file__).parent)
    doctrees = str(SOURCE.with_name("site-doctrees"))
    status = sphinx(["-q", "-W", "--keep-going", "-E", "-c", conf, "-d", doctrees, str(SOURCE), str(SITE)])
    if status == 0:
        shutil.copyfile(SITE / "README.html", SITE / "index.html")
        print(f"{SITE / 'index.html'}: {len(list(SITE.rglob('*.html')))} pages")
    return status


if __name__ == "__main__":
    sys.exit(main())

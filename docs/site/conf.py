"""Sphinx's settings; `build.py` runs it. Docstrings are plain text with Google's sections: here they become reStructuredText."""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

import unveil

project = "unveil"
author = "The unveil authors"
copyright = "The unveil authors. Apache-2.0"
version = release = unveil.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
myst_heading_anchors = 4
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of nn.Module say nothing of ours
python_maximum_signature_line_length = 90
add_module_names = False
napoleon_use_ivar = True  # fields are told of where their class is, and not once more

html_theme = "furo"
html_title = f"unveil {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields", "Example", "Examples", "Note")


def as_restructured(lines: list[str]) -> list[str]:
    """A docstring's lines, with its indented blocks as code, its names in backticks as links, and no other markup."""
    result: list[str] = []
    prose: list[str] = []
    block: list[str] = []
    in_section = False

    def flush() -> None:
        nonlocal block
        result.extend(inline("\n".join(prose)).split("\n") if prose else [])
        prose.clear()
        while block and not block[-1].strip():
            block.pop()
        if block:
            code = textwrap.dedent("\n".join(block))
            result.extend(["", f".. code-block:: {language_of(code)}", ""])
            result.extend([f"    {line}" for line in code.split("\n")] + [""])
        block = []

    fenced = False
    for line in lines:
        if line.startswith("```"):
            fenced = not fenced
            flush()
            continue
        if fenced:
            block.append(line)
            continue
        indented = line.startswith("  ")
        if re.fullmatch(rf"({'|'.join(SECTIONS)}):", line):
            flush()
            in_section = True
        elif line.strip() and not indented:
            in_section = False
        starts = line.startswith("    ") and not in_section
        continues = block and not line.strip()
        if starts or continues:
            block.append(line)
            continue
        if block:
            flush()
        prose.append(line)
    flush()
    return result


def language_of(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError:
        return "bash" if re.match(r"(unveil|python|make|torchrun) ", code) else "text"
    return "python"


def inline(text: str) -> str:
    """Backticks → a link where they hold a name that can only be one (`Tokens.x`, `Block`, `fit()`), else code."""
    parts = re.split(r"(``?[^`]+``?)", text)
    for place, part in enumerate(parts):
        if place % 2:
            name = part.strip("`")
            link = re.fullmatch(r"[A-Z]\w*|\w+(\.\w+)+(\(\))?|\w+\(\)", name)
            parts[place] = f":py:obj:`{name}`" if link else f"``{name}``"
            if parts[place + 1][:1].isalnum():
                parts[place] += "\\ "
        else:
            part = re.sub(r"([*|])", r"\\\1", part)
            parts[place] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
    return "".join(parts)


def on_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured(lines)


def on_missing(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.reference | None:
    """A name is linked from wherever it is said, if one object only is called so."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    found = {
        name: entry for name, entry in env.domains.python_domain.objects.items() if f".{name}".endswith(f".{target}")
    }
    public = {name: entry for name, entry in found.items() if entry.objtype != "attribute"}
    places = sorted(public, key=len)
    if not places or (len(places) > 1 and len(places[0]) == len(places[1])):
        return None
    entry = public[places[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, places[0])


def on_member(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple have no docstrings, but Python gives them some."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def on_page(app: Sphinx, doctree: nodes.document) -> None:
    """Indented blocks, which name no language, are mostly commands."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "none":
            block["language"] = language_of(block.astext())


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", on_docstring, priority=400)  # before Google's sections are read, at 500
    app.connect("autodoc-skip-member", on_member)
    app.connect("doctree-read", on_page)
    app.connect("missing-reference", on_missing)

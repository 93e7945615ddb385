"""`unveil recipes`: the systems, one line each; or one of them as a tree of parts with its sizes.

The table in the README is this table: `unveil recipes --markdown`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from unveil.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """A system as its module's docstring tells it.

    Attributes:
        name: of the recipe. title: of the paper. source: authors, venue, year. arxiv: number, may be empty.
        published: its number. commands: its command lines. idea: the paragraph between.
    """

    name: str
    title: str
    source: str
    arxiv: str
    idea: str
    published: str
    commands: list[str]


def entry(name: str) -> Entry:
    """Read a recipe module's docstring: title, authors and venue with arXiv number, idea, "Published: …", commands.

    Raises:
        ValueError: a part is missing; the docstring is the recipe's documentation.
    """
    from unveil import recipes

    text = inspect.getdoc(recipes.module_of(recipes.find(name))) or ""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    head = " ".join(paragraphs[0].split())
    title, _, rest = (
        paragraphs[0].replace("\n", " ").partition(". ")
        if "\n" not in paragraphs[0]
        else (*paragraphs[0].partition("\n"),)
    )
    arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", head)
    published = re.search(r"Published:\s*(.+?)(?=\n\s*\n|\n\s+unveil |\Z)", text, re.S)
    commands = re.findall(r"^\s*(unveil .+)$", text, re.M)
    if not (title and rest and arxiv and published and commands):
        raise ValueError(
            f"the docstring of recipe {name} lacks its title, authors, arXiv number, published number or command"
        )
    idea = next((p for p in paragraphs[1:] if not p.startswith(("Published:", "unveil "))), "")
    source = re.sub(r"\s*arXiv:\S+", "", " ".join(rest.split())).strip(" .")
    return Entry(
        name, title.strip(" ."), source, arxiv[1], " ".join(idea.split()), " ".join(published[1].split()), commands
    )


def markdown() -> str:
    """The table of systems, for the README."""
    from unveil import recipes

    lines = ["| recipe | system | published |", "|---|---|---|"]
    for name in recipes.names():
        item = entry(name)
        link = f"[{item.title}](https://arxiv.org/abs/{item.arxiv})"
        lines.append(f"| `{name}` | {link}. {item.source} | {item.published} |")
    return "\n".join(lines)


def recipes(argv: Sequence[str]) -> None:
    """Print the systems, or one of them.

    Raises:
        UserError: no such recipe or flag.
    """
    from rich.console import Console
    from rich.table import Table

    from unveil import recipes as registry

    console = Console()
    words = list(argv)
    if words == ["--markdown"]:
        print(markdown())
        return
    if words and words[0] not in ("-h", "--help"):
        _one(console, words)
        return
    table = Table("recipe", "system", "published", box=None, pad_edge=False)
    for name in registry.names():
        item = entry(name)
        table.add_row(name, f"{item.title} ({item.source})", item.published)
    console.print(table)
    console.print("\nunveil recipes NAME [--size L …]   parts, parameters and multiply-adds of one")


def _one(console: Any, words: list[str]) -> None:
    import torch

    from unveil import recipes as registry
    from unveil.cli import flags_for
    from unveil.flags import assemble, expand, presets, recipe_flags
    from unveil.sizes import activation_bytes, gmacs, parameters, readable

    name, rest = words[0], words[1:]
    function = registry.find(name)
    given = flags_for(f"unveil recipes {name}", function, rest)
    preset = given.pop("preset", None)
    flags = expand(function, preset, given)
    with torch.device("meta"):
        recipe = assemble(function, flags)
    console.print(inspect.getdoc(registry.module_of(function)), markup=False, highlight=False)
    console.print()
    console.print(tree(recipe.objective, name))
    console.print(
        f"\n{parameters(recipe.objective) / 1e6:.2f} M parameters ("
        + ", ".join(f"encoder {key} {parameters(tower) / 1e6:.2f} M" for key, tower in _towers(recipe).items())
        + f"), {gmacs(recipe):.2f} GMACs a sample"
    )
    console.print(
        f"{readable(activation_bytes(recipe))} of activations a sample in training, "
        f"{readable(activation_bytes(recipe, checkpointing=True))} with --checkpointing true"
    )
    console.print(f"data: {recipe.data.signal!r}, {', '.join(map(repr, recipe.data.transform))}", markup=False)
    console.print(f"{recipe.optimizer}\n{recipe.schedule}", markup=False)
    console.print("\nflags:")
    for flag in recipe_flags(function).values():
        console.print(f"  --{flag.name.replace('_', '-')} {flag.default}   {flag.help}", markup=False, highlight=False)
    for label, values in presets(function).items():
        console.print(f"  --preset {label}   {values}", markup=False, highlight=False)


def _towers(recipe: Recipe) -> dict[str, nn.Module]:
    return recipe.objective.towers  # type: ignore[return-value]


def tree(module: nn.Module, name: str) -> Any:
    """The parts of a module as a rich tree: class, settings and parameters; equal neighbours are shown once."""
    from rich.tree import Tree

    def add(branch: Tree, part: nn.Module, depth: int) -> None:
        children = list(part.named_children())
        i = 0
        while i < len(children):
            label, child = children[i]
            same = 1
            while i + same < len(children) and repr(children[i + same][1]) == repr(child) and label.isdigit():
                same += 1
            text = _label(f"{label}…{int(label) + same - 1}" if same > 1 else label, child, same)
            twig = branch.add(text)
            if depth < 3:
                add(twig, child, depth + 1)
            i += same

    root = Tree(_label(name, module, 1))
    add(root, module, 0)
    return root


def _label(name: str, module: nn.Module, times: int) -> Any:
    from rich.text import Text

    count = sum(p.numel() for p in module.parameters()) * times
    settings = module.extra_repr()
    text = Text.assemble((f"{name}  ", "bold"), type(module).__name__)
    if settings:
        text.append(f"({settings})", style="dim")
    if count:
        text.append(f"  {count / 1e6:.3f} M")
    return text

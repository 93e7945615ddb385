"""Links between the pages lead somewhere: to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import documents

PAGES = [*documents.pages(), documents.ROOT / "CHANGELOG.md"]


def links(text: str) -> list[str]:
    """What a page's links and pictures point to."""
    found = []
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or []:
            if target := token.attrGet("href" if token.type == "link_open" else "src"):
                found.append(str(target))
    return found


def anchors(text: str) -> set[str]:
    """The names that hosts give to a page's headings."""
    tokens = MarkdownIt().parse(text)
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere."""
    wrong = []
    for link in links(text):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        there = target.exists() and target.is_relative_to(documents.ROOT)
        if there and anchor:
            there = anchor in anchors(text if target == page else target.read_text(encoding="utf-8"))
        if not there:
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(documents.ROOT)))
def test_the_links_of(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_every_page_can_be_reached_from_the_first():
    reached, left = set(), [documents.ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text(encoding="utf-8"))}
        left += sorted(target for target in targets - reached if target.suffix == ".md" and target.exists())
    assert [str(page.relative_to(documents.ROOT)) for page in PAGES if page not in reached] == []


def test_what_is_broken_is_found():
    page = documents.ROOT / "docs" / "glossary.md"
    text = "# A b\n\n[x](gone.md) [y](#a-b) [z](#c) ![p](gone.png) [s](design.md#the-contracts) [t](design.md#none)\n"
    text += "\n| a |\n|---|\n| [u](/etc/passwd) |\n"
    assert broken(page, text) == ["gone.md", "#c", "gone.png", "design.md#none", "/etc/passwd"]

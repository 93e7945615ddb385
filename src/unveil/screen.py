"""What a person is told on the way."""

from __future__ import annotations


def say(quiet: bool, text: str) -> None:
    """A line on the screen (standard error), unless all is to be `quiet`."""
    if not quiet:
        from rich.console import Console

        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)

"""A run that another run builds on: looked at before it begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unveil.errors import UserError
from unveil.run import Run


def decided_by(
    flags: Mapping[str, Any], flag: str, lender: Callable[..., Any], decides: Mapping[str, str], lacks: str, make: str
) -> tuple[dict[str, Any], Run]:
    """The flags of a run with those that the run it builds on decides, and that run.

    Args:
        flags: as they were given; the folder is among them.
        flag: that names the folder, and the part in errors: "tokenizer".
        lender: recipe of the other run.
        decides: flag of the run → flag of the other, which must agree.
        lacks: what a run of another recipe cannot do, as a clause: "which gives images no codes".
        make: a sentence that says how to make one.

    Raises:
        UserError: there is no such run, it is of another recipe, has no weights, or contradicts the flags.
    """
    named, found = flags[flag], dict(flags)
    try:
        run = Run(Path(named))
    except UserError as error:
        raise UserError(f"--{flag} {error} {make}") from error
    if run.info["recipe"] != lender.__name__:
        raise UserError(f"--{flag} {named}: a run of {run.info['recipe']}, {lacks}. {make}")
    if not run.has_weights:
        raise UserError(f"--{flag} {named}: the run has no weights yet. Let it finish first.")
    own = inspect.signature(lender).parameters
    for ours, theirs in decides.items():
        value = run.info["flags"].get(theirs, own[theirs].default)
        if found.setdefault(ours, value) != value:
            raise UserError(f"--{ours.replace('_', '-')} {found[ours]}: the {flag}'s is {value}; leave the flag out.")
    return {**found, flag: str(Path(named).resolve())}, run

"""Templates → one self-contained HTML page: no network, no script, every name escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unveil.storage import replacing


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of this package and write it in one step.

    Args:
        path: of the HTML file.
        template: its name in `templates/`.
        values: what it is filled with; all text is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unveil.serve"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    with replacing(path) as temporary:
        # A file name may hold bytes that are no UTF-8 (surrogates in Python): shown as "?", not fatal.
        temporary.write_text(page, encoding="utf-8", errors="replace")

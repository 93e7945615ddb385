"""Write docs/parity.md: how far every number is from the references'. `python docs/parity.py`; takes a few minutes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

HEAD = """# Equal to the references

Made by `docs/parity.py`; the tests in `tests/golden/` hold every row.

## Numbers

Each file of `tests/golden/` says what a published implementation computed in a small configuration from weights and inputs that
are made of their names alone. The same tensors go through `unveil.weights` into our networks. The deviation is the largest
difference over the standard deviation of the reference's tensor (of a lone number: over itself). Allowed are 1e-4, or three times
the reference's own difference between float32 and float64 where that is more: that figure stands in brackets.

| system | reference | largest deviation | compared |
| --- | --- | --- | --- |
"""
SIZES = """
## Sizes

Parameters in millions (within 0.5 %) and multiply–adds in 10⁹ for one sample (within 2 %), matrix products of attention included.
Where masked patches are dropped their projection is added, which the references compute and we do not.

| system | variant | input | recipe | parameters ours / published | GMACs ours / published | source |
| --- | --- | --- | --- | --- | --- | --- |
"""


def reference(source: str) -> str:
    """`owner/name@commit:file` or a sentence, short."""
    return re.sub(r"@([0-9a-f]{7})[0-9a-f]*", r"@\1", source.split(";")[0].split(":")[0])


def numbers() -> list[str]:
    from harness import compare
    from reference import names, read

    lines = []
    for name in names():
        golden, rows = read(name), compare(name)
        worst = max(rows, key=lambda row: row.deviation.found / row.deviation.allowed)
        allowed = f" ({worst.deviation.allowed:.1e})" if worst.deviation.allowed > 1e-4 else ""
        lines.append(
            f"| {golden['system']} {golden['variant']} | {reference(golden['source'])} "
            f"| {worst.deviation.found:.1e}{allowed}, {worst.output} | {', '.join(r.output for r in rows)} |"
        )
    return lines


def sizes() -> list[str]:
    from published import ours, rows

    lines = []
    for row in rows():
        if "left_out" in row.build:
            millions, count, recipe = "–", "–", row.build["left_out"]
        else:
            millions, count = (f"{value:.2f}" for value in ours(row))
            flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in row.build.get("flags", {}).items())
            recipe = f"`{row.build['recipe']} {flags}`"
        theirs = ["–" if value is None else f"{value:.2f}" for value in (row.millions, row.gmacs)]
        lines.append(
            f"| {row.system} | {row.variant} | {row.input} | {recipe} | {millions} / {theirs[0]} | {count} / {theirs[1]} "
            f"| {reference(row.source)} |"
        )
    return lines


if __name__ == "__main__":
    page = HEAD + "\n".join(numbers()) + "\n" + SIZES + "\n".join(sizes()) + "\n"
    (ROOT / "docs" / "parity.md").write_text(page, encoding="utf-8")

"""Write the table of systems into the README, between its two markers. `make table`; a test holds it to be true."""

import re
from pathlib import Path

from unveil.catalogue import markdown

README = Path(__file__).parents[1] / "README.md"


def updated(text: str) -> str:
    return re.sub(
        r"(<!-- systems -->\n).*?(<!-- /systems -->)", lambda m: m[1] + markdown() + "\n" + m[2], text, flags=re.DOTALL
    )


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")

"""Parameters and multiply–adds are the published ones."""

import pytest
from published import GMACS, PARAMETERS, Row, ours, rows


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows() if "left_out" not in row.build])
def test_size_is_the_published(row: Row) -> None:
    millions, count = ours(row)
    if row.millions is not None:
        assert millions == pytest.approx(row.millions, rel=PARAMETERS)
    if row.gmacs is not None:
        assert count == pytest.approx(row.gmacs, rel=GMACS)

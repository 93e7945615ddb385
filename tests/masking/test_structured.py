import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.masking import Structured

RATIO = st.floats(0, 0.99)


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), RATIO, RATIO, st.integers(0, 99))
def test_what_is_visible_is_a_crossing_of_rows_and_columns(grid, time, frequency, seed) -> None:
    mask = Structured(time, frequency)(grid, torch.Generator().manual_seed(seed))
    visible = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    visible[mask.visible] = True
    assert torch.equal(mask.masked, (~visible).nonzero()[:, 0])
    assert torch.equal(mask.visible, mask.visible.sort().values)
    table = visible.view(grid)
    rows, columns = table.any(1), table.any(0)
    assert torch.equal(table, rows[:, None] & columns)
    assert rows.sum() == max(1, int(grid[0] * (1 - time)))
    assert columns.sum() == max(1, int(grid[1] * (1 - frequency)))


def test_every_row_may_stay() -> None:
    masks = [Structured(0.5, 0.5)((4, 2), torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert {tuple(mask.visible.tolist()) for mask in masks} == {
        tuple(sorted((2 * a + c, 2 * b + c))) for a in range(4) for b in range(a) for c in range(2)
    }

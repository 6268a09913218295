"""Rows and columns that a merge leaves of a map, from how many tokens it leaves.

A share r of N_h × N_w tokens is P_h × P_w of them, each ⌊√r · N + ½⌋ (`plan.cells`). Which of these
sizes a number of tokens P stands for is not written anywhere, and need not be: as r falls, P falls
with every row or column that goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ltmp_export.plan.geometry import Size


def shaped(grid: Size, tokens: int) -> Size:
    """Rows and columns of a grid that was merged into so many tokens.

    Raises:
        ValueError: No share of the grid leaves so many.
    """
    for rows, columns in _sizes(grid):
        if rows * columns == tokens:
            return rows, columns
    raise ValueError(f"{grid[0]} × {grid[1]} tokens merged into {tokens}: no share leaves so many")


def _sizes(grid: Size) -> Iterator[Size]:
    """All that are left as the share falls: √r passes (k - ½) / N for k rows, or columns, of N."""
    rows, columns = grid
    yield grid
    while rows and columns:
        by_row, by_column = (2 * rows - 1) * grid[1], (2 * columns - 1) * grid[0]
        rows, columns = rows - (by_row >= by_column), columns - (by_column >= by_row)
        yield rows, columns

"""A grid of patches divided into fewer cells, as masks start from."""

from __future__ import annotations

import math

from ltmp_export.plan.geometry import Size


def cells(ratio: float, grid: Size) -> Size:
    """Rows and columns of the cells that are a share `ratio` of a grid's patches, rounded."""
    rows, columns = (math.floor(math.sqrt(ratio) * side + 0.5) for side in grid)
    return rows, columns


def lies_in(grid: Size, divided: Size) -> list[int]:
    """The cell that each patch of a grid lies in, both row by row."""
    (height, width), (rows, columns) = grid, divided
    return [
        y * rows // height * columns + x * columns // width
        for y in range(height)
        for x in range(width)
    ]


def membership(grid: Size, divided: Size) -> list[list[float]]:
    """[patches, cells] 1 where a patch lies in a cell, else 0: a mask as training starts."""
    cells_there = range(divided[0] * divided[1])
    return [[float(cell == other) for other in cells_there] for cell in lies_in(grid, divided)]

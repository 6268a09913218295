"""Where tokens stand when windows are cut, in plain numbers."""

from __future__ import annotations

from ltmp_export.backbones.swin.geometry import Block


def order(block: Block) -> list[int]:
    """For each token of each window, row by row, its place among the tokens of the image."""
    (height, width), (down, across) = block.grid, block.shift
    return [(y + down) % height * width + (x + across) % width for y, x in _rolled(block)]


def back(block: Block) -> list[int]:
    """The inverse: for each token of the image its place among those of the windows."""
    places = [0] * block.tokens
    for place, token in enumerate(order(block)):
        places[token] = place
    return places


def regions(block: Block) -> list[int]:
    """A number for each token of each window; those with unlike ones do not attend to each other.

    Rolling brings tokens of opposite sides of the image together.
    """
    return [3 * _part(block, 0, y) + _part(block, 1, x) for y, x in _rolled(block)]


def relations(block: Block) -> list[int]:
    """For each pair of tokens of a window the row of the table of biases."""
    height, width = block.window
    own = [(y, x) for y in range(height) for x in range(width)]
    return [
        (y - other_y + height - 1) * (2 * width - 1) + x - other_x + width - 1
        for y, x in own
        for other_y, other_x in own
    ]


def _rolled(block: Block) -> list[tuple[int, int]]:
    """Row and column of each token of each window, after the tokens were rolled."""
    (rows, columns), (height, width) = block.windows, block.window
    return [
        (row * height + y, column * width + x)
        for row in range(rows)
        for column in range(columns)
        for y in range(height)
        for x in range(width)
    ]


def _part(block: Block, axis: int, place: int) -> int:
    """0 before the last window of an axis, 1 in it, 2 in what was rolled there."""
    side, window, shift = block.grid[axis], block.window[axis], block.shift[axis]
    if not shift:
        return 0
    return (place >= side - window) + (place >= side - shift)

"""Colours of tokens: seven that people with any colour vision tell apart, none beside itself.

They are those of Okabe and Ito ("Color Universal Design", 2008) without black. A token keeps its
colour from block to block as far as its neighbours allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ltmp_export.drawing.owned import Owned

HUES = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
        (213, 94, 0), (204, 121, 167),
    ],
    np.uint8,
)  # fmt: skip
NAMES = ("orange", "sky blue", "green", "yellow", "blue", "vermilion", "purple")
NONE = -1  # of a patch that is alone in its token, or pruned


def of(blocks: Sequence[Owned]) -> list[NDArray[np.int64]]:
    """Of each block [P] an index into `HUES`, or `NONE`, for patches in tokens of several."""
    found: list[NDArray[np.int64]] = []
    before = np.full(0 if not blocks else len(blocks[0].places), NONE)
    for owned in blocks:
        before = _of_block(owned, before)
        found.append(before)
    return found


def _of_block(owned: Owned, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The larger a token, the earlier it chooses; those that had a colour before all others."""
    several, beside = owned.several, _neighbours(owned)
    had = {
        int(token): int(np.bincount(colours).argmax())
        for token in np.unique(owned.places[several])
        if len(colours := before[(owned.places == token) & (before >= 0)])
    }
    sizes = owned.sizes
    tokens = sorted(
        map(int, np.unique(owned.places[several])),
        key=lambda token: (token not in had, -sizes[token], token),
    )
    given: dict[int, int] = {}
    used = np.zeros(len(HUES), np.int64)
    for token in tokens:
        taken = {given[other] for other in beside.get(token, ()) if other in given}
        free = [hue for hue in range(len(HUES)) if hue not in taken] or [*range(len(HUES))]
        hue = had.get(token, NONE)
        if hue not in free:
            hue = min(free, key=lambda one: (used[one], one))
        given[token] = hue
        used[hue] += 1
    table = np.full(owned.tokens, NONE)
    table[list(given)] = list(given.values())
    return np.where(several, table[owned.places], NONE)


def _neighbours(owned: Owned) -> dict[int, set[int]]:
    """By token those whose patches touch its own, over corners as well."""
    grid = owned.places.reshape(owned.grid)
    views = (
        (grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]),
        (grid[:-1, :-1], grid[1:, 1:]), (grid[:-1, 1:], grid[1:, :-1]),
    )  # fmt: skip
    beside: dict[int, set[int]] = {}
    for one, other in views:
        pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
        for a, b in pairs.T.tolist():
            if a != b and a >= 0 and b >= 0:
                beside.setdefault(a, set()).add(b)
                beside.setdefault(b, set()).add(a)
    return beside

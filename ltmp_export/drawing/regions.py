"""Where tokens are, in pixels: plain arrays, no picture. Letters: h x w patches, P of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltmp_export.drawing.owned import Owned
from ltmp_export.steps.recorded import NOWHERE, Places


def patch_of(height: int, width: int, grid: tuple[int, int]) -> Places:
    """[height, width] which patch each pixel is in."""
    rows, columns = grid
    y = np.arange(height) * rows // height
    x = np.arange(width) * columns // width
    return y[:, None] * columns + x


def mean_colours(seen: NDArray[np.uint8], owned: Owned) -> NDArray[np.uint8]:
    """[P, 3] of each patch the mean colour of its token's patches; of a pruned one its own."""
    patch = patch_of(len(seen), seen.shape[1], owned.grid).ravel()
    number = len(owned.places)
    area = np.bincount(patch, minlength=number)
    sums = np.stack(
        [np.bincount(patch, channel, number) for channel in seen.reshape(-1, 3).T], axis=1
    )
    groups = np.where(owned.living, owned.places, owned.tokens + np.arange(number))
    total = np.zeros((owned.tokens + number, 3))
    pixels = np.zeros(owned.tokens + number)
    np.add.at(total, groups, sums)
    np.add.at(pixels, groups, area)
    means = total[groups] / np.maximum(pixels[groups], 1)[:, None]
    return np.asarray(means.round(), np.uint8)


def edge(label: Places, thickness: int) -> NDArray[np.bool_]:
    """[H, W] pixels so near to another label, or to the end of the picture, on its own side."""
    height, width = label.shape
    padded = np.pad(label, thickness, constant_values=NOWHERE - 1)
    found = np.zeros(label.shape, bool)
    for step in range(1, thickness + 1):
        for y in (-step, 0, step):
            for x in (-step, 0, step):
                top, start = thickness + y, thickness + x
                found |= padded[top : top + height, start : start + width] != label
    return found


def pieces(owned: Owned, token: int) -> list[list[int]]:
    """The patches of a token, by pieces that hang together over sides."""
    _, columns = owned.grid
    left = set(np.flatnonzero(owned.places == token).tolist())
    found = []
    while left:
        waiting = [min(left)]
        left.discard(waiting[0])
        for patch in waiting:  # grows
            x = patch % columns
            beside = [patch - columns, patch + columns]
            beside += [patch - 1] * (x > 0) + [patch + 1] * (x < columns - 1)
            for other in beside:
                if other in left:
                    left.discard(other)
                    waiting.append(other)
        found.append(sorted(waiting))
    return found


def links(owned: Owned, token: int) -> list[tuple[int, int]]:
    """Pairs of patches that connect the pieces of a token: the shortest that connect them all.

    They are the long edges of a minimum spanning tree, in which a piece holds together at no cost.
    """
    parts = pieces(owned, token)
    if len(parts) < 2:
        return []
    patches = np.concatenate([np.array(part) for part in parts])
    piece = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    y, x = (one.astype(np.int32) for one in np.divmod(patches, owned.grid[1]))
    far = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    far[piece[:, None] == piece[None]] = 0
    found, reached = [], np.zeros(len(patches), bool)
    best, whence = far[0].copy(), np.zeros(len(patches), np.int64)
    reached[0] = True
    for _ in patches[1:]:
        nearest = int(np.where(reached, far.max() + 1, best).argmin())
        if best[nearest]:
            found.append((int(patches[whence[nearest]]), int(patches[nearest])))
        reached[nearest] = True
        nearer = far[nearest] < best
        best[nearer], whence[nearer] = far[nearest][nearer], nearest
    return found

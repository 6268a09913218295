"""Positions for another grid of patches, resampled as timm does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.plan.geometry import Size

_EMBEDDING, _TABLE = "pos_embed", "relative_position_bias_table"
_OF_CLASS = 3  # rows of a table for pairs with the class token


def grid(size: Size, patch: Sequence[int], source: str) -> Size:
    """Rows and columns of the patches of images of a size.

    Raises:
        InputError: They are no whole number.
    """
    if size[0] % patch[0] or size[1] % patch[1]:
        raise InputError(
            f"{source}: images of {size[0]}x{size[1]} are no whole number of patches of "
            f"{patch[0]}x{patch[1]}; state their size with --img-size"
        )
    return size[0] // patch[0], size[1] // patch[1]


def resized(
    weights: Mapping[str, Tensor], named: Any, stored: Size | None, new: Size, source: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The weights for a grid of patches, and a warning if that changed them.

    Turns of rotary positions are no weights: timm computes them anew for a grid.

    Args:
        weights: timm names.
        named: timm's model by name.
        stored: (height, width) of the images, as the file states it.
        new: Rows and columns of patches.
        source: Where the weights come from, for messages.

    Raises:
        InputError: Nothing tells the grid they are for, or the new one takes too much memory.
    """
    patch = weights["patch_embed.proj.weight"].shape[2:]
    tables = {key for key in weights if key.endswith(_TABLE)}
    before = 0 if getattr(named, "no_embed_class", False) else named.num_prefix_tokens
    rows = []
    if _EMBEDDING in weights:
        rows.append(weights[_EMBEDDING].shape[1] - before)
    sizes = (stored, tuple(named.patch_embed.img_size))
    grids = [(s[0] // patch[0], s[1] // patch[1]) for s in sizes if s is not None]
    if rows:
        side = math.isqrt(max(rows[0], 0))
        possible = [*grids, (side, side), new]
        old = next((one for one in possible if one[0] * one[1] == rows[0] > 0), None)
    elif tables:
        number = weights[min(tables)].shape[0] - _OF_CLASS
        side = (math.isqrt(max(number, 0)) + 1) // 2
        possible = [*grids, (side, side), new]
        old = next((one for one in possible if _pairs(one) == number > 0), None)
    else:
        return weights, ()
    if old is None:
        raise InputError(
            f"{source}: nothing tells the grid that its positions are for; state the size of its "
            "images with --img-size"
        )
    if old == new:
        return weights, ()
    made = dict(weights)
    if rows:
        wanted = new[0] * new[1] * weights[_EMBEDDING].shape[2] * 4
        memory.require_memory(wanted, f"a position embedding of {new[0]}x{new[1]} patches")
        made[_EMBEDDING] = resample_abs_pos_embed(
            weights[_EMBEDDING], new_size=list(new), old_size=list(old), num_prefix_tokens=before
        )
    for key in sorted(tables):
        table = weights[key]
        shape = (_pairs(new) + _OF_CLASS, table.shape[1])
        memory.require_memory(4 * shape[0] * shape[1], f"biases of {new[0]}x{new[1]} patches")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of the order of timm's tensors
            made[key] = resize_rel_pos_bias_table(
                table, new_window_size=new, new_bias_shape=shape, old_window_size=old
            )
    warning = (
        f"positions resized from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches; thresholds and "
        "accuracy are those of the old size: check them on images"
    )
    return made, (warning,)


def _pairs(size: Size) -> int:
    """Differences of rows and columns that two patches of a grid can have."""
    return (2 * size[0] - 1) * (2 * size[1] - 1)

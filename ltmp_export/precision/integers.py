"""Weights in int8, whose products with uint8 are exact on every processor; and what makes keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT_LEVELS = 127
PAIR = 128  # 255 * 128 fits into 16 bits, see `heaviest_pairs`
SMALLEST_SCALE = 1e-36  # smaller weights than this leads to are rounded to 0


def quantised(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight to int8, so that its products with uint8 are exact on every processor.

    Args:
        weight: [out, in].

    Returns:
        Integers [in, out] of -127 to 127, their `heaviest_pairs` at most `PAIR`; their scale [out].
    """
    scale = column_scales(weight)
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).astype(np.int8).T), scale


def of_keys(weights: Mapping[str, NDArray[Any]], path: str, width: int) -> dict[str, NDArray[Any]]:
    """What of attention's weights makes keys: "weight" [H, D, C], and if there is one "bias".

    Args:
        weights: By checkpoint name; a layer for keys alone, or for queries, keys and values.
        path: Of the attention.
        width: Channels D of a head.
    """
    apart = f"{path}.k_proj.weight" in weights
    layer, thirds = (f"{path}.k_proj", 1) if apart else (f"{path}.qkv", 3)
    behind = f"{path}.in_proj.weight"  # of an MLP and, behind it, queries, keys and values
    layer = f"{path}.in_proj" if behind in weights else layer
    found = {}
    for part in ("weight", "bias"):
        if f"{layer}.{part}" in weights:
            whole = np.asarray(weights[f"{layer}.{part}"])
            if behind in weights:
                whole = whole[-3 * weights[behind].shape[1] :]
            heads = len(whole) // (thirds * width)
            found[part] = whole.reshape(thirds, heads, width, -1)[thirds // 2]
    return found


def mean_keys(
    weights: Mapping[str, NDArray[Any]], path: str, width: int, separate: bool
) -> dict[str, NDArray[np.float32]]:
    """A projection of its own to the mean of the keys over heads, of which similarity is made.

    Args:
        weights: As for `of_keys`; so are the next two.
        path: Of the attention.
        width: Channels D of a head.
        separate: Whether heads are still to be told apart, since each is normalised first.

    Returns:
        "weight" [D, C], or of heads apart [H * D, C], and if there is one "bias" [D] or [H * D].
    """
    found = {}
    for part, array in of_keys(weights, path, width).items():
        shown = array if separate else array.mean(axis=0, dtype=np.float64, keepdims=True)
        shown = shown.astype(np.float32).reshape(-1, array.shape[-1])
        found[part] = shown if part == "weight" else shown[:, 0]
    return found


def column_scales(weight: NDArray[Any]) -> NDArray[np.float32]:
    """The scale [out] at which a weight [out, in] just fits into int8 and its pairs are exact.

    Of two numbers of one sign that sum to less than 128, the nearest integers sum to at most 128:
    both go up only if what they have beyond integers is at least 1 together. So the pairs may be
    measured before rounding. The scale is larger by a millionth, for what float32 rounds.
    """
    scale = np.maximum(_largest(weight) / WEIGHT_LEVELS, heaviest_pairs(weight) / PAIR) * (1 + 1e-6)
    return np.where(scale > SMALLEST_SCALE, scale, 1).astype(np.float32)


def heaviest_pairs(weight: NDArray[Any]) -> NDArray[np.float64]:
    """[out]: the most to which numbers of one sign in columns 2i and 2i + 1 of [out, in] sum.

    onnxruntime adds the products of such a pair in 16 bits on x86-64 processors without VNNI
    instructions, and what is beyond saturates. With an activation of at most 255 nothing is if
    this is at most `PAIR`. Numbers of opposite signs sum to no more than the larger of them, and
    others never meet there.
    """
    paired = weight.shape[1] // 2 * 2
    sums = np.add(weight[:, 0:paired:2], weight[:, 1:paired:2], dtype=np.float64)
    found: NDArray[np.float64] = np.maximum(np.abs(sums).max(axis=1, initial=0), _largest(weight))
    return found


def _largest(weight: NDArray[Any]) -> NDArray[np.float64]:
    """[out]: the largest number of each row, without its sign."""
    ends = [reduce(weight, axis=1).astype(np.float64) for reduce in (np.max, np.min)]
    found: NDArray[np.float64] = np.maximum(ends[0], -ends[1])
    return found

"""Rings of patches around the middle of an image, by distances in float32 (METHOD §1).

Whether two patches are in one ring depends on how float32 rounded their places where a model was
trained; these are plain numbers rounded as float32 does, in one of two ways.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

FMA, PLAIN = "fma", "plain"
ROUNDINGS = (FMA, PLAIN)  # of start + i * step: once, or the product, too


def single(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def spaced(start: float, end: float, count: int, rounding: str) -> list[float]:
    """So many float32 numbers from one to another, the second half counted from the end."""
    start, end = single(start), single(end)
    if count == 1:
        return [start]
    step = single(single(end - start) / (count - 1))

    def at(origin: float, times: int) -> float:
        product = times * step  # exact: 24 bits and a few
        return single(origin + (product if rounding == FMA else single(product)))

    half = count // 2
    return [at(start, i) if i < half else at(end, i - count + 1) for i in range(count)]


def _l2(x: float, y: float) -> float:
    return math.sqrt(single(single(x * x) + single(y * y)))


DISTANCES: dict[str, Callable[[float, float], float]] = {
    "l1": lambda x, y: abs(x) + abs(y),
    "l2": _l2,
    "linf": lambda x, y: max(abs(x), abs(y)),
}


def distances(side: int, pattern: str, rounding: str) -> list[float]:
    """Of each patch of a square grid from its middle, row by row.

    Args:
        side: Patches of a row.
        pattern: One of `DISTANCES`.
        rounding: One of `ROUNDINGS`.
    """
    places = spaced(-side // 2, side // 2, side, rounding)
    measure = DISTANCES[pattern]
    return [single(measure(row, column)) for row in places for column in places]


def nearest(z: Sequence[float], count: int) -> float:
    """The first distance within which the number of patches is nearest to this."""
    return min(sorted(set(z)), key=lambda t: abs(sum(one <= t for one in z) - count))

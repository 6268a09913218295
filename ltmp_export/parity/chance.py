"""How many new pictures may be beyond a baseline's limits by chance alone.

Limits that are set by `held` of n pictures, which the other n - held fit, leave an unknown share of
all pictures beyond them: the chance that one more picture would set limits, too. Where any n set
them by as many, that share is distributed as Beta(held, n - held + 1), whatever the pictures are
(tolerance regions: Wilks 1941, Tukey 1947); where the number varies, nearly so (Campi and Garatti
2018). Pictures counted against a fixed limit have the same distribution with one more than were
found. That one is counted everywhere: it covers both, and 0 of n is not taken for never. So the
baseline's own uncertainty is in it, and of m new pictures the number beyond is beta-binomial.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POINTS = 400  # at which the unknown share is taken
_WIDTH = 12.0  # standard deviations of it to either side


def most(held: int, known: int, new: int, share: float, level: float) -> int:
    """The largest number of new pictures beyond that is still no drift.

    Args:
        held: Pictures of the baseline that set its limits.
        known: Pictures of the baseline.
        new: New pictures.
        share: Of the new pictures that may be beyond, above those that are where nothing changed.
        level: Chance that more are, where that very share is.

    Returns:
        From 0 to `new`; `new` where no number would tell.
    """
    first = float(min(held + 1, known))
    last = known + 1 - first
    mean = first / (first + last)
    reach = _WIDTH * np.sqrt(mean * (1 - mean) / (first + last + 1))
    ends = np.linspace(max(0.0, mean - reach), min(1.0, mean + reach), _POINTS + 1)
    middle = (ends[:-1] + ends[1:]) / 2
    logs = (first - 1) * np.log(middle) + (last - 1) * np.log1p(-middle)
    weights = np.exp(logs - logs.max())
    ways, found = _ways(new), np.arange(new + 1)
    chances = np.zeros(new + 1)
    for at, weight in zip(middle, weights / weights.sum(), strict=True):
        beyond = min(at + share, 1 - 1e-12)
        each = found * np.log(beyond) + found[::-1] * np.log1p(-beyond)
        chances += weight * np.exp(ways + each)
    more = np.cumsum(chances[::-1])[::-1] - chances  # [new + 1] chance of more than that many
    return int(np.argmax(more <= level))


def _ways(count: int) -> NDArray[np.float64]:
    """[count + 1] logarithms of the ways to choose each number of `count`."""
    steps = np.log(np.arange(1, count + 1, dtype=np.float64))
    factorials = np.concatenate([[0.0], np.cumsum(steps)])
    ways: NDArray[np.float64] = factorials[-1] - factorials - factorials[::-1]
    return ways

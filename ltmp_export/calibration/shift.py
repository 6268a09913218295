"""The thresholds of a fine-tuned model moved together, their order kept.

All move by the same step on the scale of log(θ/(1-θ)): pruning thresholds, small, by the same
factor; merging thresholds, near 1, so that their distance from 1 changes by the same factor. So
which block merges and prunes more than another stays as it was learned, and all stay in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LEAST = 1e-6  # thresholds at 0 and 1 can move from here


def shifted(thresholds: Mapping[str, Sequence[float]], by: float) -> dict[str, list[float]]:
    """Thresholds that remove more tokens for `by` above 0, fewer below; the same at 0."""
    return {
        kind: [_moved(value, -by if kind == "merge" else by) for value in values]
        for kind, values in thresholds.items()
    }


def _moved(value: float, by: float) -> float:
    if by == 0.0:
        return value
    outward = max if by > 0.0 else min  # one at 0 or 1 already does not come inwards for it
    inside = min(max(value, _LEAST), 1.0 - _LEAST)
    moved = 1.0 / (1.0 + math.exp(-(math.log(inside / (1.0 - inside)) + by)))
    return outward(value, moved)

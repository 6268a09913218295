"""A budget, as a file recorded it: those that stay are in the first slots, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.fit.step import Fit
from ltmp_export.steps.recorded import INT64, KEEPS, Decided, Places, Read, by_importance, selected

TENSORS = {"fitted": INT64}
WORDS = KEEPS
SAVED = ("fitted", "fit_importance")  # pruning in the same block keeps, too
score_name = by_importance


def read(
    step: Fit, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    fitted = own["fitted"]
    if len(fitted) != step.keep:
        raise ValueError(f"there is room for {len(fitted)} tokens, not for {step.keep}")
    places = fitted[:count]
    chosen = np.isin(slot, places)
    if slot[chosen].tolist() != places.tolist():
        raise ValueError("a budget keeps a slot that holds no token, or changes the order")
    if not chosen[:protected].all():
        raise ValueError("a budget drops a protected token")
    went = selected(np.flatnonzero(chosen), len(slot))
    return Read(Decided(chosen), own["score"][slot], np.arange(len(places)), went)

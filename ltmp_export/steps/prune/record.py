"""Pruning by a threshold, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.recorded import BOOL, KEEPS, Decided, Places, Read, by_importance, selected

TENSORS = {"kept": BOOL}
WORDS = KEEPS
score_name = by_importance


def read(
    step: Prune, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    chosen = own["kept"][slot]
    if not chosen[:protected].all():
        raise ValueError("a protected token is pruned")
    if not chosen.any():
        raise ValueError("no token is left")
    went = selected(np.flatnonzero(chosen), len(slot))
    return Read(Decided(chosen), own["score"][slot], slot[chosen], went)

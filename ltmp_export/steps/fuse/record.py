"""Keeping what the class token attends to, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.recorded import (
    INT64,
    SELECTS,
    Places,
    Read,
    by_class_attention,
    ranked,
)

TENSORS = {"ranking": INT64}
WORDS = SELECTS._replace(score="class attention")
score_name = by_class_attention


def read(
    step: Fuse, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens = len(slot)
    kept = ranked(own, slot, step.kept(tokens, protected), protected)
    if not step.fused or kept.went is None:
        return kept
    went = np.where(kept.choice.chosen, kept.went, len(kept.left))
    return kept._replace(left=np.arange(step.after(tokens, protected)), went=went)

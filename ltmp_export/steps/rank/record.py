"""Sorting patches by what the class token attends to, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ltmp_export.steps.rank.step import Rank
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
    step: Rank, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    return ranked(own, slot, step.keep, protected)

"""Keeping the tokens that a small network prefers, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ltmp_export.steps.predict.step import Predict
from ltmp_export.steps.recorded import INT64, SELECTS, Places, Read, ranked

TENSORS = {"ranking": INT64}
WORDS = SELECTS._replace(score="predicted score")


def score_name(step: Predict, resized: bool) -> str:
    """Its own scores."""
    return "score"


def read(
    step: Predict, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    return ranked(own, slot, step.keep, protected)

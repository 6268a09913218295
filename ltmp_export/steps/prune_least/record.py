"""Pruning a fixed number, which sorts, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.prune_least.step import PruneLeast
from ltmp_export.steps.recorded import (
    INT64,
    KEEPS,
    Decided,
    Places,
    Read,
    by_importance,
    require_within,
    selected,
)

TENSORS = {"order": INT64}
WORDS = KEEPS
score_name = by_importance


def read(
    step: PruneLeast, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, order = len(slot), own["order"]
    if len(order) != tokens - step.count:
        raise ValueError(f"{len(order)} of {tokens} tokens are kept; {step.count} are to go")
    if len(set(order.tolist())) != len(order) or order[:protected].tolist() != [*range(protected)]:
        raise ValueError("a token is kept twice, or the protected ones are not the first")
    require_within(order, tokens, tokens)
    chosen = np.zeros(tokens, bool)
    chosen[order] = True
    choice = Decided(chosen, order=order)
    return Read(choice, own["score"][slot], np.arange(len(order)), selected(order, tokens))

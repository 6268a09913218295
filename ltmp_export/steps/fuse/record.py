"""Keeping what the class token attends to, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.recorded import (
    INT64,
    Decided,
    Places,
    Read,
    Words,
    by_class_attention,
    require_ranking,
    selected,
)

TENSORS = {"ranking": INT64}
WORDS = Words(
    "kept",
    "not kept",
    "class attention",
    {
        "kept": "is kept by the file, not by the reference",
        "not kept": "is kept by the reference, not by the file",
    },
)
score_name = by_class_attention


def read(
    step: Fuse, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, ranking = len(slot), own["ranking"]
    require_ranking(ranking, tokens - protected)
    kept = step.kept(tokens, protected)
    order = np.append(np.arange(protected), protected + ranking[:kept])
    chosen = np.zeros(tokens, bool)
    chosen[order] = True
    choice = Decided(chosen, order=order)
    went = selected(order, tokens)
    if step.fused:
        went[~chosen] = len(order)
    return Read(choice, own["score"][slot], np.arange(step.after(tokens, protected)), went)

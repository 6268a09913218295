"""Merging patches into the crucial ones, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.mergence.step import Mergence
from ltmp_export.steps.recorded import (
    INT64,
    Decided,
    Places,
    Read,
    Words,
    by_class_attention,
    require_ranking,
    require_within,
    selected,
)

TENSORS = {"ranking": INT64, "partner": INT64}
WORDS = Words(
    "kept",
    "merged away",
    "class attention",
    {
        "kept": "is kept by the file, merged away by the reference",
        "merged away": "is merged away by the file, kept by the reference",
    },
)
score_name = by_class_attention


def read(
    step: Mergence, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, ranking, partner = len(slot), own["ranking"], own["partner"]
    patches = tokens - protected
    require_ranking(ranking, patches)
    if len(partner) != patches - step.keep:
        raise ValueError(f"{len(partner)} of {patches - step.keep} patches have a partner")
    require_within(partner, step.keep, tokens)
    chosen = np.zeros(tokens, bool)
    chosen[:protected] = True
    chosen[protected + ranking[: step.keep]] = True
    into = np.zeros(tokens, np.int64)
    into[~chosen] = partner
    went = selected(np.flatnonzero(chosen), tokens)
    went[~chosen] = protected + partner
    choice = Decided(chosen, into, merges=~chosen)
    return Read(choice, own["score"][slot], np.arange(step.after(tokens, protected)), went)

"""Keeping dominant patches, and merging the others, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.contextual.step import Contextual
from ltmp_export.steps.mergence.record import WORDS as WORDS
from ltmp_export.steps.recorded import (
    INT64,
    Decided,
    Places,
    Read,
    by_class_attention,
    require_ranking,
    require_within,
    selected,
)

TENSORS = {"ranking": INT64, "partner": INT64}
score_name = by_class_attention


def read(
    step: Contextual, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, ranking, partner = len(slot), own["ranking"], own["partner"]
    require_ranking(ranking, tokens - protected)
    chosen = np.arange(tokens) < protected
    chosen[protected + ranking[: step.keep]] = True
    others = np.flatnonzero(~chosen)
    targets, sources = (others[rows] for rows in step.split(tokens - protected))
    if len(partner) != len(sources):
        raise ValueError(f"{len(partner)} of {len(sources)} patches have a partner")
    require_within(partner, step.tokens, tokens)
    into, moves = np.zeros(tokens, np.int64), np.zeros(tokens, bool)
    into[sources], moves[sources] = partner, True
    went = selected(np.append(np.flatnonzero(chosen), targets), tokens)
    went[sources] = protected + step.keep + partner
    choice = Decided(chosen, into, merges=moves)
    return Read(choice, own["score"][slot], np.arange(step.after(tokens, protected)), went)

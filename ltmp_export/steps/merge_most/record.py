"""Merging a fixed number, as a file recorded it; all tokens are then in the first slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.plan import pairing
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.recorded import (
    INT64,
    MERGES,
    Decided,
    Places,
    Read,
    by_similarity,
    of_sources,
    paired,
    require_within,
)

TENSORS = {"ranking": INT64, "partner": INT64}
WORDS = MERGES
score_name = by_similarity


def read(
    step: MergeMost, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens = len(slot)
    ranking, partner = own["ranking"], own["partner"]
    sources = pairing.sources(tokens, protected)
    if sorted(ranking) != list(range(sources)):
        raise ValueError(f"a merge of {tokens} tokens ranks a source twice, or one beyond them")
    if len(partner) != sources:
        raise ValueError(f"a merge of {tokens} tokens decides about {len(partner)} sources")
    require_within(partner, pairing.destinations(tokens, protected), tokens)
    even = pairing.protected_sources(protected)
    chosen = np.zeros(even + sources, bool)
    chosen[even + ranking[: step.count]] = True
    front = np.arange(even)
    target = np.append(front, partner + pairing.protected_destinations(protected))
    others = np.append(front, even + ranking[step.count :])
    order = others if step.ranked else None
    choice = Decided(chosen, target, order)
    stays = ranking[step.count :]
    went = paired(tokens, protected, stays if step.ranked else np.sort(stays), partner)
    score = of_sources(own["score"], sources, protected)
    return Read(choice, score, np.arange(tokens - step.count), went)

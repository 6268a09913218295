"""Merging by a threshold, as a file recorded it.

A file decides about the sources behind the protected tokens; after the merge its slots are the
protected tokens, these, and the destinations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.plan import pairing
from ltmp_export.plan.step import Learned
from ltmp_export.steps.recorded import (
    BOOL,
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

TENSORS = {"merged": BOOL, "partner": INT64}
WORDS = MERGES
score_name = by_similarity


def read(
    step: Learned, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens = len(slot)
    merged, partner = own["merged"], own["partner"]
    sources = pairing.sources(tokens, protected)
    destinations = pairing.destinations(tokens, protected)
    if min(len(merged), len(partner)) < sources:
        found = min(len(merged), len(partner))
        raise ValueError(f"a merge of {tokens} tokens decides about {found} sources only")
    chosen, target = merged[:sources], partner[:sources]
    require_within(target[chosen], destinations, tokens)
    left = np.concatenate(
        [
            np.arange(protected),
            protected + np.flatnonzero(~chosen),
            protected + len(merged) + np.arange(destinations),
        ]
    )
    went = paired(tokens, protected, np.flatnonzero(~chosen), target)
    score = of_sources(own["score"], sources, protected)
    front = np.zeros(pairing.protected_sources(protected), np.int64)  # they stay
    chosen = np.append(front > 0, chosen)
    target = np.append(front, target + pairing.protected_destinations(protected))
    return Read(Decided(chosen, target), score, left, went)

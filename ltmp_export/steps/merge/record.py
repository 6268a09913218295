"""Merging by a threshold, as a file recorded it.

A file decides about the sources behind the class token; after the merge its slots are the class
token, these, and the destinations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.plan import pairing
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.recorded import (
    BOOL,
    INT64,
    MERGES,
    Places,
    Read,
    by_similarity,
    of_sources,
    require_within,
)
from ltmp_export.steps.tokens import Choice

TENSORS = {"merged": BOOL, "partner": INT64}
WORDS = MERGES
score_name = by_similarity


def read(step: Merge, own: Mapping[str, NDArray[Any]], slot: Places, count: int) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens = len(slot)
    merged, partner = own["merged"], own["partner"]
    sources, destinations = pairing.sources(tokens, 1), pairing.destinations(tokens, 1)
    if min(len(merged), len(partner)) < sources:
        found = min(len(merged), len(partner))
        raise ValueError(f"a merge of {tokens} tokens decides about {found} sources only")
    chosen, target = merged[:sources], partner[:sources]
    require_within(target[chosen], destinations, tokens)
    left = np.concatenate(
        [[0], 1 + np.flatnonzero(~chosen), 1 + len(merged) + np.arange(destinations)]
    )
    score = of_sources(own["score"], sources)
    chosen, target = np.append(False, chosen), np.append(0, target)  # the class token stays
    return Read(Choice(torch.from_numpy(chosen), torch.from_numpy(target)), score, left)

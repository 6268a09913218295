"""Clustering patch tokens around peaks of their density, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.recorded import (
    INT64,
    Places,
    Read,
    Words,
    ranked,
    require_within,
)

TENSORS = {"ranking": INT64, "partner": INT64}
WORDS = Words(
    "a centre",
    "no centre",
    "density times peak",
    {
        "a centre": "is a centre in the file, not in the reference",
        "no centre": "is a centre in the reference, not in the file",
    },
)


def score_name(step: Cluster, resized: bool) -> str:
    """Its own scores."""
    return "score"


def read(
    step: Cluster, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, partner = len(slot), own["partner"]
    kept = ranked(own, slot, step.tokens, protected)
    if kept.went is None or len(partner) != tokens - protected:
        raise ValueError(f"{len(partner)} of {tokens - protected} patches have a centre")
    require_within(partner, step.tokens, tokens)
    others = ~kept.choice.chosen
    into = np.append(np.zeros(protected, np.int64), partner)
    into[kept.choice.chosen] = 0  # itself
    went = np.where(others, protected + into, kept.went)
    return kept._replace(choice=kept.choice._replace(partner=into, merges=others), went=went)

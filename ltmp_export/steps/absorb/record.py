"""Merging the last of sorted patches into the first, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.mergence.record import WORDS as WORDS
from ltmp_export.steps.recorded import INT64, Decided, Places, Read, require_within

TENSORS = {"partner": INT64}
SAVED = ("merged", "ranked_class_attention")  # the step before it has saved the unsorted ones


def score_name(step: Absorb, resized: bool) -> str:
    """The tensor of the sorted tokens' attention."""
    return "ranked_class_attention"


def read(
    step: Absorb, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, partner = len(slot), own["partner"]
    left = step.after(tokens, protected)
    if len(partner) != tokens - left:
        raise ValueError(f"{len(partner)} of {tokens - left} patches have a partner")
    require_within(partner, step.keep, tokens)
    chosen = np.arange(tokens) < left
    into = np.zeros(tokens, np.int64)
    into[left:] = partner
    went = np.arange(tokens)
    went[left:] = protected + partner
    choice = Decided(chosen, into, merges=~chosen)
    return Read(choice, own["score"][slot], np.arange(left), went)

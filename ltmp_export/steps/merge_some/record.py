"""Merging by a threshold and a cap, as a file recorded it.

The order of what is left follows from the similarities that it recorded, of equal ones the lower
row first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.plan import pairing
from ltmp_export.steps.merge import record
from ltmp_export.steps.merge.record import TENSORS as TENSORS
from ltmp_export.steps.merge.record import WORDS as WORDS
from ltmp_export.steps.merge.record import score_name as score_name
from ltmp_export.steps.merge_some.step import MergeSome
from ltmp_export.steps.recorded import Places, Read, paired


def read(
    step: MergeSome, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    tokens, merged = len(slot), own["merged"]
    found = record.read(step, own, slot, count, protected)
    chosen, partner = found.choice.chosen, found.choice.partner
    if not chosen.any() or partner is None:
        return found._replace(left=np.arange(tokens), went=np.arange(tokens))
    if not step.ranked:
        return found
    ranking = np.argsort(-found.score, kind="stable")
    stays = ranking[~chosen[ranking]]
    destinations = len(merged) + np.arange(pairing.destinations(tokens, protected))
    return found._replace(
        choice=found.choice._replace(order=stays),
        left=np.concatenate([np.arange(len(stays)), destinations]),
        went=paired(tokens, protected, stays, partner),
    )

"""Sampling tokens by the class token's attention, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.steps.recorded import BOOL, SELECTS, Decided, Places, Read, selected
from ltmp_export.steps.sample.step import Sample

TENSORS = {"kept": BOOL}
WORDS = SELECTS._replace(score="lead at a sample point")
_LOSES = -np.finfo(np.float32).tiny  # as in the reference


def score_name(step: Sample, resized: bool) -> str:
    """Running shares of attention, which leads are told from."""
    return "cdf"


def read(
    step: Sample, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    chosen = own["kept"][slot]
    if not chosen[:protected].all():
        raise ValueError("a protected token is not sampled")
    running = own["score"][slot][protected:]
    score = np.concatenate([np.full(protected, np.inf, np.float32), _leads(step, running)])
    went = selected(np.flatnonzero(chosen), len(slot))
    return Read(Decided(chosen), score, slot[chosen], went)


def _leads(step: Sample, running: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] of each the largest lead, by numbers rounded as the file's."""
    if not len(running):
        return running
    points = np.array(step.points, np.float32)
    apart = np.abs(running - points[:, None])  # [K, n]
    rows, first = np.arange(len(apart)), apart.argmin(1)
    least = apart[rows, first]
    ahead = np.minimum(least[:, None] - apart, _LOSES)
    others = apart.copy()
    others[rows, first] = np.inf
    ahead[rows, first] = others.min(1) - least
    found: NDArray[np.float32] = ahead.max(0).clip(-1.0, 1.0)
    return found

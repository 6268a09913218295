"""Merging by a learned mask, as a file recorded it: the mask, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.recorded import BOOL, INT64, Places, Read, Words, require_within
from ltmp_export.steps.tokens import Choice

WORDS = Words(
    "reached",
    "empty",
    "weight",
    {
        "reached": "is a target that patches reach in the file, none in the reference",
        "empty": "is a target that no patch reaches in the file, some do in the reference",
    },
)
TENSORS = {"target": INT64, "reached": BOOL}


def score_name(step: MergeMask, resized: bool) -> str:
    """The whole mask where patches are restored, else what each target gets at most."""
    return "mask" if step.restore else "reach"


def read(
    step: MergeMask, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    patches, targets = step.sets * step.of, step.sets * step.tokens
    protected = len(slot) - patches
    _require_length(own["score"], patches * step.tokens if step.restore else targets, "weights")
    chosen = np.ones(len(own["score"]), bool)
    if not step.restore:
        chosen = own["reached"]
        _require_length(chosen, targets, "targets")
    into = merges = None
    if step.hard:
        _require_length(own["target"], patches, "patches with a target")
        require_within(own["target"], step.tokens, patches)
        into = torch.from_numpy(np.concatenate([np.zeros(protected, np.int64), own["target"]]))
        merges = torch.arange(len(slot)) >= protected
    choice = Choice(torch.from_numpy(np.asarray(chosen)), into, merges=merges)
    return Read(choice, own["score"], np.arange(step.after(len(slot), protected)))


def _require_length(values: NDArray[Any], expected: int, what: str) -> None:
    """Check how many there are.

    Raises:
        ValueError: Another number.
    """
    if len(values) != expected:
        raise ValueError(f"{len(values)} {what}; expected {expected}")

"""Merging by a learned mask, as a file recorded it: the mask, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.graph import searched
from ltmp_export.steps.merge_mask.step import EPS, MergeMask
from ltmp_export.steps.recorded import (
    BOOL,
    HIDDEN,
    INT64,
    NOWHERE,
    Decided,
    Places,
    Read,
    Words,
    require_within,
)

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


def hidden(step: MergeMask, model: ModelProto, scope: str) -> str | None:
    """The weights [B, N, P], of which a file that restores nothing names the largest alone."""
    if step.restore or step.sets > 1:
        return None
    return searched.before(model, f"{scope}reach", "ReduceMax")


def mixing(step: MergeMask, model: ModelProto, scope: str) -> str | None:
    """Its weights, by the name that they have or do not have."""
    return f"{scope}mask" if step.restore else hidden(step, model, scope)


def shares(step: MergeMask, values: NDArray[Any], protected: int) -> NDArray[np.float64]:
    """[P, N] of each target the shares of the patches, from weights [N, P] before relu or after."""
    weights = np.maximum(values.astype(np.float64).reshape(step.of, step.tokens), 0)
    return np.asarray((weights / (weights.sum(0) + EPS)).T)


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
        into = np.concatenate([np.zeros(protected, np.int64), own["target"]])
        merges = np.arange(len(slot)) >= protected
    left = np.arange(step.after(len(slot), protected))
    choice = Decided(np.asarray(chosen), into, merges=merges)
    return Read(choice, own["score"], left, _went(step, own, len(slot) - patches))


def _went(step: MergeMask, own: Mapping[str, NDArray[Any]], protected: int) -> Places | None:
    """Where a hard mask takes the tokens; a patch whose weights are all 0 goes nowhere."""
    weights = own["score"] if step.restore else own.get(HIDDEN)
    if not step.hard or weights is None:
        return None
    goes = weights.reshape(step.sets * step.of, step.tokens).max(1) > 0
    first = step.tokens * np.arange(step.sets).repeat(step.of)
    place = np.where(goes, protected + first + own["target"], NOWHERE)
    return np.concatenate([np.arange(protected), place])


def _require_length(values: NDArray[Any], expected: int, what: str) -> None:
    """Check how many there are.

    Raises:
        ValueError: Another number.
    """
    if len(values) != expected:
        raise ValueError(f"{len(values)} {what}; expected {expected}")

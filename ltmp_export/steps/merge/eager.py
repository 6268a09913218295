"""Merging by a threshold, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.steps.matching import merge
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, above


def take(
    step: Merge, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Merge even rows into their most similar odd rows, see `matching.merge`."""
    return merge(step, tokens, forced)


def choose(step: Merge, score: Tensor) -> Verdict:
    """Sources above the threshold."""
    return above(score, step.threshold)

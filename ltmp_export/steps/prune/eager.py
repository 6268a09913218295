"""Pruning by a threshold, in PyTorch (METHOD §1, step 5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, keep, surviving


def take(
    step: Prune, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep the important tokens, in their order."""
    return keep(step, tokens, tokens.scores[IMPORTANCE], forced)


def choose(step: Prune, score: Tensor) -> Verdict:
    """Tokens above the threshold, protected ones, whose score is +inf, among them; at least one."""
    return surviving(score, step.threshold)

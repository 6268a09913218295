"""Pruning a fixed number, in PyTorch (METHOD §1, step 5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune_least.step import PruneLeast
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first, keep


def take(
    step: PruneLeast, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep the important tokens, by importance."""
    return keep(step, tokens, tokens.scores[IMPORTANCE], forced)


def choose(step: PruneLeast, score: Tensor) -> Verdict:
    """All but the last of the ranking, sorted."""
    kept = len(score) - step.count
    verdict, ranking = first(score, kept)
    return verdict._replace(order=ranking[:kept])

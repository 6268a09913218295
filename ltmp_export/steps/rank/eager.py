"""Sorting patches by what the class token attends to, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.rank.step import Rank
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first, keep


def take(
    step: Rank, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Sort them, and keep the first."""
    return keep(step, tokens, tokens.scores[CLASS_ATTENTION], forced)


def choose(step: Rank, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in the order of their scores."""
    number = int(score.isposinf().sum()) + step.keep
    verdict, ranking = first(score, number)
    return verdict._replace(order=ranking[:number])

"""A budget, in PyTorch (METHOD §1, step 5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.fit.step import Fit
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first, keep


def take(
    step: Fit, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep the most important tokens, in their order."""
    return keep(step, tokens, tokens.scores[IMPORTANCE], forced)


def choose(step: Fit, score: Tensor) -> Verdict:
    """The first of the ranking, or all."""
    return first(score, step.keep)[0]

"""Merging by a threshold and a cap, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ltmp_export.steps.matching import merge
from ltmp_export.steps.merge_some.step import MergeSome
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, above, first


def take(
    step: MergeSome, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Merge even rows into their most similar odd rows, see `matching.merge`, if any does."""
    left, decision = merge(step.limited(len(tokens.x), tokens.protected), tokens, forced)
    merges = decision.chosen if forced is None else forced.chosen
    if bool(merges.any()):
        return left, decision
    return tokens, decision


def choose(step: MergeSome, score: Tensor) -> Verdict:
    """Sources above the threshold, the most similar of them; ranked, the others by similarity."""
    verdict = above(score, step.threshold)
    if int(verdict.chosen.sum()) > step.cap:
        verdict = first(score, step.cap)[0]
    if not step.ranked or not bool(verdict.chosen.any()):
        return verdict
    ranking = score.argsort(descending=True, stable=True)
    return verdict._replace(order=ranking[~verdict.chosen[ranking]])

"""Keeping dominant patches, and merging the others into some of themselves, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.plan.scores import CLASS_ATTENTION, METRIC
from ltmp_export.steps.contextual.step import Contextual
from ltmp_export.steps.mergence.eager import Selection
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, first


def take(
    step: Contextual, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep some, merge the others."""
    score, protected = tokens.scores[CLASS_ATTENTION], tokens.protected
    verdict = choose(step, score)
    kept = verdict.chosen if forced is None else forced.chosen
    others = torch.nonzero(~kept)[:, 0]
    targets, sources = (others[rows] for rows in step.split(len(score) - protected))
    found = _partners(tokens.scores[METRIC], targets, sources)
    into = found.index if forced is None or forced.partner is None else forced.partner
    index = into[sources]
    number = tokens.x.new_zeros(step.tokens).index_add(0, index, tokens.x.new_ones(len(index)))
    brought = torch.zeros_like(tokens.x[targets]).index_add(0, index, tokens.x[sources])
    made = tokens.x[targets] + brought / number.clamp(min=1)[:, None]
    members = tokens.members
    if members is not None:
        whole = members[targets].index_add(0, index, members[sources])
        members = torch.cat([members[kept], whole])
    x = torch.cat([tokens.x[kept], made])
    left = Tokens(x, x.new_ones(len(x)), {}, protected, members=members)
    return left, Selection(
        step, verdict.threshold, score, verdict.chosen, verdict.order, protected, into=found
    )


def choose(step: Contextual, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in their own order."""
    return first(score, int(score.isposinf().sum()) + step.keep)[0]


def _partners(metric: Tensor, targets: Tensor, sources: Tensor) -> Partners:
    """The most similar target of all tokens, of which the sources merge."""
    similarity = metric @ metric[targets].mT  # [N, T]
    best = similarity.amax(1)
    index = (similarity == best[:, None]).int().argmax(1)  # the first on a tie
    runner_up = similarity.scatter(1, index[:, None], -torch.inf).amax(1)
    moved = torch.zeros(len(metric), dtype=torch.bool)
    moved[sources] = True
    return Partners(moved, index, best, runner_up, similarity)

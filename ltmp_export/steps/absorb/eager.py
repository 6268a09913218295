"""Merging the last of sorted patches into the first, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.mergence.eager import Selection, members, partners
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first


def take(
    step: Absorb, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep some, merge each other into one of them."""
    score, protected = tokens.scores[CLASS_ATTENTION], tokens.protected
    verdict = choose(step, score)
    kept = verdict.chosen if forced is None else forced.chosen
    places = torch.nonzero(kept)[protected:, 0]  # of the patches that stay
    found = partners(tokens.x, places, ~kept)
    into = found.index
    if forced is not None and forced.partner is not None:
        into = forced.partner
    moved = torch.nonzero(~kept)[:, 0]
    index = into[moved]
    cosine = found.similarity.gather(1, into[:, None])[moved, 0]
    number = tokens.x.new_ones(len(places)).index_add(0, index, torch.ones_like(cosine))
    x = tokens.x[places].index_add(0, index, tokens.x[moved]) / number[:, None]
    grown = tokens.size[places].index_add(0, index, tokens.size[moved] * cosine)
    left = Tokens(
        x=torch.cat([tokens.x[:protected], x]),
        size=torch.cat([tokens.size[:protected], grown]),
        scores={},
        protected=protected,
        members=members(tokens, places, index, moved),
    )
    decision = Selection(
        step, verdict.threshold, score, verdict.chosen, verdict.order, protected, into=found
    )
    return left, decision


def choose(step: Absorb, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in their own order."""
    protected = int(score.isposinf().sum())
    return first(score, protected + step.keep)[0]

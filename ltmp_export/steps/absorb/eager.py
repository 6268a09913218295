"""Merging the last of sorted patches into the first, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.mergence.eager import highest, meet, members
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict


def take(
    step: Absorb, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep some, merge each other into one of them."""
    decision, _, places, moved, index, cosines = meet(step, step.keep, tokens, forced)
    protected, cosine = tokens.protected, cosines[moved]
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
    return left, decision


def choose(step: Absorb, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in their own order."""
    return highest(step.keep, score)

"""Merging patches into the crucial ones, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step
from ltmp_export.steps.mergence.step import IMPORTANCE, SIMILARITY, SIZE, Mergence
from ltmp_export.steps.positions import Positions
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, first


@dataclass(frozen=True, kw_only=True)
class Selection(Decision):
    """Who stays, and into whom each of the others merges.

    Attributes:
        into: Of all tokens, among the patches that stay.
    """

    into: Partners

    @property
    def partners(self) -> Partners:
        """Into whom those merge that do not stay."""
        return self.into


class Met(NamedTuple):
    """Who stays, and into whom the others merge.

    Attributes:
        decision: What the step decides by itself.
        kept: [N] bool: the tokens that stay.
        places: [K] rows of the patches that stay.
        moved: [m] rows that merge.
        into: [m] which of the places each of these merges into.
        cosine: [N] similarity of each token to the one it would merge into.
    """

    decision: Selection
    kept: Tensor
    places: Tensor
    moved: Tensor
    into: Tensor
    cosine: Tensor


def take(
    step: Mergence, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep some, merge each other into one of them."""
    decision, kept, places, moved, index, cosine = meet(step, step.keep, tokens, forced)
    protected, owned = tokens.protected, tokens.patches_owned()
    weight = _weights(step, tokens, cosine, kept)
    total = weight[places].index_add(0, index, weight[moved])  # [K]
    weighted = weight[:, None] * tokens.x
    x = weighted[places].index_add(0, index, weighted[moved])
    left = Tokens(
        x=torch.cat([tokens.x[:protected], x / total[:, None]]),
        size=tokens.size[: protected + len(places)],
        scores={},
        protected=protected,
        owned=torch.cat([owned[:protected], owned[places].index_add(0, index, owned[moved])]),
        members=members(tokens, places, index, moved),
        positions=_positions(tokens, places, moved, index),
    )
    return left, decision


def meet(step: Step, keep: int, tokens: Tokens, forced: Choice | None) -> Met:
    """Who stays, and into whom the others merge.

    Args:
        step: That decides it.
        keep: How many patches stay, those of the highest class attention.
        tokens: Before.
        forced: What is taken in the place of what it decides.
    """
    score, protected = tokens.scores[CLASS_ATTENTION], tokens.protected
    verdict = highest(keep, score)
    kept = verdict.chosen if forced is None else forced.chosen
    places = torch.nonzero(kept)[protected:, 0]
    found = partners(tokens.x, places, ~kept)
    into = found.index
    if forced is not None and forced.partner is not None:
        into = forced.partner
    moved = torch.nonzero(~kept)[:, 0]
    cosine = found.similarity.gather(1, into[:, None])[:, 0]
    decision = Selection(
        step, verdict.threshold, score, verdict.chosen, verdict.order, protected, into=found
    )
    return Met(decision, kept, places, moved, into[moved], cosine)


def members(tokens: Tokens, places: Tensor, index: Tensor, moved: Tensor) -> Tensor | None:
    """The patches of protected tokens and of those in `places`, where they are followed.

    Args:
        tokens: Before.
        places: [n] rows that stay.
        index: [m] which of these each moved one merges into.
        moved: [m] rows that merge.
    """
    if tokens.members is None:
        return None
    own, patches = tokens.members[: tokens.protected], tokens.members
    return torch.cat([own, patches[places].index_add(0, index, patches[moved])])


def _positions(tokens: Tokens, places: Tensor, moved: Tensor, index: Tensor) -> Positions | None:
    """Of the protected rows, and those in `places` that the moved ones merge into."""
    where = tokens.positions
    if where is None:
        return None
    kept = where.taken(lambda rows: rows[places])
    moving = where.taken(lambda rows: rows[moved])
    received = kept.received(index, moving)
    return where.taken(lambda rows: torch.cat([rows[: tokens.protected], received.rows]))


def choose(step: Mergence, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in their own order."""
    return highest(step.keep, score)


def highest(keep: int, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and so many of the highest, in their own order."""
    protected = int(score.isposinf().sum())
    return first(score, protected + keep)[0]


def partners(x: Tensor, places: Tensor, moved: Tensor) -> Partners:
    """The most similar of the rows in `places`, for all rows [N, C]."""
    unit = x / x.norm(dim=-1, keepdim=True)
    similarity = unit @ unit[places].mT  # [N, K]
    best = similarity.amax(1)
    index = (similarity == best[:, None]).int().argmax(1)  # the lowest row on a tie
    runner_up = similarity.scatter(1, index[:, None], -torch.inf).amax(1)
    return Partners(moved, index, best, runner_up, similarity)


def _weights(step: Mergence, tokens: Tokens, cosine: Tensor, kept: Tensor) -> Tensor:
    """[N] of the mean."""
    by_word = {
        SIZE: tokens.patches_owned(),
        IMPORTANCE: tokens.scores[CLASS_ATTENTION],
        SIMILARITY: torch.where(kept, torch.ones_like(cosine), cosine.clamp(min=0)),
    }
    return by_word.get(step.weights, torch.ones_like(cosine))

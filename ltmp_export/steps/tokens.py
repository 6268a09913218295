"""The tokens of one image and what a step decides about them, eager and plain.

Nothing here knows of networks. Shapes: N tokens, C channels, D channels per head; P protected rows
stand in front of everything and are never merged away or pruned. Of equal scores the one of the
lower row goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ltmp_export.plan import faces, pairing
from ltmp_export.plan.step import Step
from ltmp_export.steps.positions import Positions


@dataclass(frozen=True)
class Tokens:
    """The tokens of one image, between attention and MLP of a block or before one.

    Attributes:
        x: [N, C] token vectors.
        size: [N] patches each token stands for.
        scores: By the names of `plan.scores`. [N] each, +inf for protected rows; the metric [N, D].
        protected: How many rows in front are never merged away or pruned.
        owned: [N] patches that each token owns where attention does not weigh by them; None while
            each owns as many as it stands for.
        handed: What steps hand on to those of the same kind in later blocks, by names of theirs.
        positions: Where they lie, where attention knows of it.
        members: [N, P] 1 for each patch of the image that a token is made of, else 0; None where
            nobody asks, or patches are mixed.
    """

    x: Tensor
    size: Tensor
    scores: Mapping[str, Tensor]
    protected: int = 1
    owned: Tensor | None = None
    handed: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Positions | None = None
    members: Tensor | None = None

    def patches_owned(self) -> Tensor:
        """[N] patches that each token owns, of protected ones 1."""
        return self.size if self.owned is None else self.owned

    def take(self, which: Tensor) -> Tokens:
        """Some of the tokens, by a mask or by their rows."""
        scores = {name: score[which] for name, score in self.scores.items()}
        owned = None if self.owned is None else self.owned[which]
        where = None if self.positions is None else self.positions.taken(lambda rows: rows[which])
        members = None if self.members is None else self.members[which]
        return replace(
            self, x=self.x[which], size=self.size[which], scores=scores, owned=owned,
            positions=where, members=members,
        )  # fmt: skip


class Verdict(NamedTuple):
    """What scores lead to.

    Attributes:
        chosen: [n] bool: the sources that merge, or the tokens that stay.
        order: The rows of the scores that stay, in the order they then stand in; None where that
            is their own.
        threshold: What divides the chosen from the others: the frozen threshold; else the middle
            between the last score that is chosen and the first that is not, and infinite where
            there is no choice.
    """

    chosen: Tensor
    order: Tensor | None
    threshold: float


@dataclass(frozen=True)
class Decision:
    """What a step saw and chose.

    Attributes:
        step: What was asked of it.
        threshold: What the scores of the chosen are above, see `Verdict`.
        score: [n] of each token that it decides about; +inf or -inf for protected ones, which have
            no choice.
        chosen: [n] bool: who stays, or of a `Matching` who merges.
        order: Rows of the scores in the order they then stand in; None: their own.
        protected: How many scores in front are of tokens that have no choice.
    """

    step: Step
    threshold: float
    score: Tensor
    chosen: Tensor
    order: Tensor | None = None
    protected: int = 1

    @property
    def order_matters(self) -> bool:
        """Whether a later step reads the order; a merge's is sorted again before that."""
        return getattr(self.step, "ordered", False)

    @property
    def unit(self) -> Tensor:
        """What an error of each score is measured in, [n]: shares of attention in themselves."""
        return self.score.clamp_min(_SMALLEST)

    @property
    def partners(self) -> Partners | None:
        """Into whom those merge who do; None where nobody does."""
        return None

    def compared(self, score: Tensor) -> tuple[Decision, Tensor]:
        """The decision, and how large an error in its unit explains somebody else's scores, [n].

        Where a score depends on a comparison, the least rounding may take it far. Then the decision
        is that by the scores on those sides that are nearest to theirs.
        """
        return self, (score - self.score).abs() / self.unit

    def row(self, index: int) -> int:
        """The token behind a score."""
        return index


@dataclass(frozen=True)
class Partners:
    """Into whom tokens merge, by similarity: inner products of unit vectors.

    Attributes:
        moved: [n] bool, who merges, of those with a score.
        index: [n] the most similar candidate of each.
        best: [n] how similar that is.
        runner_up: [n] the second-best similarity; -inf where there is none.
        similarity: [n, candidates].
    """

    moved: Tensor
    index: Tensor
    best: Tensor
    runner_up: Tensor
    similarity: Tensor


@dataclass(frozen=True, kw_only=True)
class Matching(Decision):
    """What a step saw and chose that merges even rows, sources, into odd ones, destinations.

    Scores are [ceil(N/2)] best similarities of each even row; -inf for a protected one.

    Attributes:
        partner: [ceil(N/2)] index of that best destination among the odd rows.
        runner_up: [ceil(N/2)] second-best similarity; -inf where there is none.
        similarity: [ceil(N/2), floor(N/2)] inner products; -inf for protected rows.
    """

    partner: Tensor
    runner_up: Tensor
    similarity: Tensor

    @property
    def unit(self) -> Tensor:
        """Of unit vectors."""
        return torch.ones_like(self.score)

    @property
    def partners(self) -> Partners:
        """Those who merge are those chosen, by the very similarity."""
        return Partners(self.chosen, self.partner, self.score, self.runner_up, self.similarity)

    def row(self, index: int) -> int:
        """The token behind a score."""
        return pairing.first_source(0) + 2 * index


@dataclass(frozen=True)
class Choice:
    """What somebody else chose in a step, to be taken instead of the own decision.

    Attributes:
        chosen: As in `Decision`.
        partner: As `Partners.index`; None where nobody merges.
        order: As in `Verdict`.
        merges: As `Partners.moved`; None where those chosen do.
    """

    chosen: Tensor
    partner: Tensor | None = None
    order: Tensor | None = None
    merges: Tensor | None = None

    @property
    def moved(self) -> Tensor:
        """[n] bool, who has a partner that matters."""
        return self.chosen if self.merges is None else self.merges


_SMALLEST = torch.finfo(torch.float32).tiny  # below this a score is zero to a float32 runtime


def take(
    step: Step, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision | None]:
    """Take one step of a plan; a forced choice is carried out, the own decision returned.

    Args:
        step: The step.
        tokens: What it is taken on.
        forced: What to do instead of what it would decide.
        weights: Of the reduction itself, by name.

    Returns:
        What is left; and the decision, None where a step decides nothing.
    """
    taken: tuple[Tokens, Decision | None] = faces.face(type(step), "eager").take(
        step, tokens, forced, weights
    )
    return taken


def restore(
    step: Step, given: Tokens, made: Tokens, left: Tokens, weights: Mapping[str, Tensor]
) -> Tokens:
    """Tokens behind a block whose step restores what it took away.

    Args:
        step: The step.
        given: What it was given.
        made: What it made of them.
        left: What the block made of these.
        weights: Of the reduction itself, by name.
    """
    restored: Tokens = faces.face(type(step), "eager").restore(step, given, made, left, weights)
    return restored


def along(step: Step, left: Tokens, x: Tensor) -> Tensor:
    """What lies where the tokens lay, reduced as these were.

    Args:
        step: A step that merges tokens by where they lie alone.
        left: What it left of the tokens.
        x: [N, any] a row for each token that it was given.

    Returns:
        [n, any] a row for each that is left.
    """
    reduced: Tensor = faces.face(type(step), "eager").along(step, left, x)
    return reduced


def choose(step: Step, score: Tensor) -> Verdict:
    """Who merges or stays by these scores.

    Args:
        step: What is asked.
        score: [n] as in `Decision`.
    """
    verdict: Verdict = faces.face(type(step), "eager").choose(step, score)
    return verdict


def above(score: Tensor, threshold: float) -> Verdict:
    """Those above a threshold."""
    return Verdict(score > threshold, None, threshold)


def surviving(score: Tensor, threshold: float) -> Verdict:
    """Those above a threshold; where none is, the first of the highest."""
    verdict = above(score, threshold)
    return verdict if bool(verdict.chosen.any()) else first(score, 1)[0]


def first(score: Tensor, number: int) -> tuple[Verdict, Tensor]:
    """So many of the highest scores, and the ranking [n] of all."""
    ranking = score.argsort(descending=True, stable=True)
    chosen = torch.zeros(len(score), dtype=torch.bool)
    chosen[ranking[:number]] = True
    threshold = -torch.inf
    if 0 < number < len(score):
        threshold = float(score[ranking[number - 1 : number + 1]].mean())
    return Verdict(chosen, None, threshold), ranking


def keep(
    step: Step, tokens: Tokens, score: Tensor, forced: Choice | None
) -> tuple[Tokens, Decision]:
    """Keep the tokens that a step chooses, in their order or in the verdict's."""
    verdict = choose(step, score)
    decision = Decision(
        step, verdict.threshold, score, verdict.chosen, verdict.order, tokens.protected
    )
    chosen, order = verdict.chosen, verdict.order
    if forced is not None:
        chosen, order = forced.chosen, forced.order
    return tokens.take(chosen if order is None else order), decision

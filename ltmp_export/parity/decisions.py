"""Where a file's decisions differ from the reference's, and how near a decision was.

Distances are relative to the score they belong to, as rounding errors are: an importance is a mean
of softmax weights, whose error grows with it, so its distance is divided by it; a similarity is an
inner product of unit vectors, whose error is the same everywhere, and is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ltmp_export.steps import recorded
from ltmp_export.steps.recorded import SIMILARITY, Words
from ltmp_export.steps.tokens import Choice, Decision

STORIES = {
    "partner": "is merged into another partner than the reference's",
    "order": "stands before one of a higher score",
}


@dataclass(frozen=True)
class Disagreement:
    """One decision of one image that the reference, on the same tokens, takes otherwise.

    Attributes:
        block: Index of the block.
        what: What the file did: a key of `STORIES`, or one of its step's words.
        token: Row among the tokens that the step saw, protected ones included.
        score: The reference's score, in float64.
        threshold: What the score is compared with; for a partner, the score of the file's; for an
            order, the highest score behind it.
        unit: What distances from it are measured in, see this module.
        words: Of its step.
    """

    block: int
    what: str
    token: int
    score: float
    threshold: float
    unit: float
    words: Words

    @property
    def margin(self) -> float:
        """|score - threshold|."""
        return abs(self.score - self.threshold)

    @property
    def distance(self) -> float:
        """The margin in units of the score."""
        return self.margin / self.unit

    def describe(self, bound: float) -> str:
        """One clause with everything a person needs; `bound` is the largest distance excused."""
        score, other = self.words.score, "threshold"
        if self.what == "partner":
            score, other = SIMILARITY, "to the file's partner"
        elif self.what == "order":
            score, other = "score", "behind it"
        story = STORIES.get(self.what) or self.words.stories[self.what]
        return (
            f"token {self.token} {story}: {score} {self.score:.9g}, {other} "
            f"{self.threshold:.9g}, margin {self.margin:.1e}, rounding explains "
            f"{bound * self.unit:.1e}"
        )


def distances(decision: Decision) -> Tensor:
    """Relative distance from the threshold of each score that is no protected token's."""
    apart = (decision.score - decision.threshold).abs() / decision.unit
    return apart[decision.protected :].double()


def leads(decision: Decision) -> Tensor:
    """How far ahead of the runner-up each merging source's partner is, [merging with a choice].

    Exact ties are left out: with equal keys the lowest index wins on either side, mostly.
    """
    partners = decision.partners
    if partners is None:
        return decision.score.new_empty(0).double()
    lead = (partners.best - partners.runner_up).double()[partners.moved]
    return lead[(lead > 0) & lead.isfinite()]


def steps_down(decision: Decision) -> Tensor:
    """By how much each score is above the next of an order that a later step reads, relative.

    Exact ties are left out: of equal scores the lower row goes first on either side.
    """
    if decision.order is None or not decision.order_matters:
        return decision.score.new_empty(0).double()
    others = decision.order[decision.protected :]  # the protected are always the first
    apart = -decision.score[others].diff() / decision.unit[others][1:]
    return apart[apart > 0].double()


def margin(decision: Decision) -> float:
    """Relative distance of the decision that comes nearest to falling otherwise.

    +inf where nothing was decided, NaN where a score is NaN.
    """
    near = torch.cat([distances(decision), leads(decision), steps_down(decision)])
    return float(near.amin()) if len(near) else torch.inf


def disagreements(block: int, decision: Decision, choice: Choice) -> Iterator[Disagreement]:
    """Where the reference's own decision differs from the one that was forced on it.

    A source that the file alone merges must have the partner that the reference would have taken.
    """
    words = recorded.of(decision.step).WORDS
    flipped = torch.nonzero(decision.chosen != choice.chosen)[:, 0].tolist()
    for index in flipped:
        what = words.taken if choice.chosen[index] else words.left
        yield _disagreement(block, what, decision, index, decision.threshold)
    partners = decision.partners
    if (partners is None) != (choice.partner is None):
        raise ValueError(f"{decision.step}: partners on one side only")
    if partners is not None and choice.partner is not None:
        elsewhere = choice.moved & (partners.index != choice.partner)
        for index in torch.nonzero(elsewhere)[:, 0].tolist():
            best = float(partners.best[index])
            other = float(partners.similarity[index, choice.partner[index]])
            row = decision.row(index)
            yield Disagreement(block, "partner", row, best, other, 1.0, words)
    if choice.order is not None and decision.order_matters:
        behind = choice.order[decision.protected :]  # the protected are always the first
        highest = decision.score[behind].flip(0).cummax(0).values.flip(0)  # of it and those after
        for place in torch.nonzero(decision.score[behind] < highest)[:, 0].tolist():
            index, other = int(behind[place]), float(highest[place])
            yield _disagreement(block, "order", decision, index, other)


def _disagreement(
    block: int, what: str, decision: Decision, index: int, threshold: float
) -> Disagreement:
    score, scale = float(decision.score[index]), float(decision.unit[index])
    words = recorded.of(decision.step).WORDS
    return Disagreement(block, what, decision.row(index), score, threshold, scale, words)

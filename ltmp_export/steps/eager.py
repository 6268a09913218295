"""The token algebra of METHOD §1 for one image, eager and plain: merging, pruning and budgets.

Nothing here knows of networks. Shapes: N tokens, C channels, D channels per head; the class token
is row 0 of everything and is never merged away or pruned. Of equal scores the one of the lower row
goes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ltmp_export.plan.plan import Fit, Merge, MergeMost, Prune, PruneLeast, Step


@dataclass(frozen=True)
class Tokens:
    """The tokens of one image between attention and MLP of a block.

    Attributes:
        x: [N, C] token vectors.
        size: [N] patches each token stands for.
        importance: [N] mean attention received over heads and queries, in [0, 1]; row 0 is +inf.
        metric: [N, D] unit vectors; their inner products are the similarities.
    """

    x: Tensor
    size: Tensor
    importance: Tensor
    metric: Tensor


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
class MergeDecision:
    """What a merge saw and chose.

    Attributes:
        step: What was asked of it.
        threshold: What the scores of the merging sources are above, see `Verdict`.
        score: [ceil(N/2)] best similarity of each source (even row); -inf for the class token.
        partner: [ceil(N/2)] index of that best destination among the odd rows.
        runner_up: [ceil(N/2)] second-best similarity; -inf where there is none.
        chosen: [ceil(N/2)] bool, the sources that merge.
        similarity: [ceil(N/2), floor(N/2)] inner products; -inf for the class token, and towards
            a distillation token.
        order: Indices of the other sources in the order they then stand in; None: their own.
    """

    step: Merge | MergeMost
    threshold: float
    score: Tensor
    partner: Tensor
    runner_up: Tensor
    chosen: Tensor
    similarity: Tensor
    order: Tensor | None = None


@dataclass(frozen=True)
class PruneDecision:
    """What a pruning or a budget saw and chose.

    Attributes:
        step: What was asked of it.
        threshold: What the scores of the tokens that stay are above, see `Verdict`.
        score: [N] importance; +inf for the class token.
        chosen: [N] bool, the tokens that stay.
        order: Their rows in the order they then stand in; None: their own.
    """

    step: Prune | PruneLeast | Fit
    threshold: float
    score: Tensor
    chosen: Tensor
    order: Tensor | None = None


Decision: TypeAlias = MergeDecision | PruneDecision


@dataclass(frozen=True)
class Choice:
    """What somebody else chose in a step, to be taken instead of the own decision.

    Attributes:
        chosen: The sources that merge [ceil(N/2)], or the tokens that stay [N]; bool.
        partner: [ceil(N/2)] the destination of each source; None for a pruning.
        order: As in `Verdict`.
    """

    chosen: Tensor
    partner: Tensor | None = None
    order: Tensor | None = None


def choose(step: Step, score: Tensor) -> Verdict:
    """Who merges or stays by these scores.

    Args:
        step: What is asked.
        score: [n] of the sources, the class token's -inf; or of the tokens, the class token's +inf.
    """
    if isinstance(step, (Merge, Prune)):
        return Verdict(score > step.threshold, None, step.threshold)
    ranking = score.argsort(descending=True, stable=True)
    if isinstance(step, MergeMost):
        first = step.count
    else:
        first = step.keep if isinstance(step, Fit) else len(score) - step.count
    chosen = torch.zeros(len(score), dtype=torch.bool)
    chosen[ranking[:first]] = True
    threshold = -torch.inf
    if 0 < first < len(score):
        threshold = float(score[ranking[first - 1 : first + 1]].mean())
    if not isinstance(step, MergeMost):
        return Verdict(chosen, ranking[:first] if isinstance(step, PruneLeast) else None, threshold)
    others = ranking[first:]
    order = torch.cat([others.new_zeros(1), others[others != 0]]) if step.ranked else None
    return Verdict(chosen, order, threshold)


def apply(step: Step, tokens: Tokens, forced: Choice | None = None) -> tuple[Tokens, Decision]:
    """Take one step of a plan; a forced choice is carried out, the own decision returned."""
    if isinstance(step, (Merge, MergeMost)):
        return merge(tokens, step, forced)
    return prune(tokens, step, forced)


def merge(
    tokens: Tokens, step: Merge | MergeMost, forced: Choice | None = None
) -> tuple[Tokens, MergeDecision]:
    """Merge even rows into their most similar odd rows (METHOD §1, 3-4).

    Returns:
        The tokens in the order [unmerged sources ; all destinations], x the size-weighted mean,
        size the sum and importance the maximum of what went into each; and the decision. A
        distillation token, the first destination, comes right after the class token.
    """
    decision = match(tokens.metric, step)
    source, destination = slice(0, None, 2), slice(1, None, 2)
    merged, partners, order = decision.chosen, decision.partner, decision.order  # [Ns]
    if forced is not None and forced.partner is not None:
        merged, partners, order = forced.chosen, forced.partner, forced.order
    partner = partners[merged]  # [K]
    stay = torch.nonzero(~merged)[:, 0] if order is None else order

    weighted = tokens.x * tokens.size[:, None]  # [N, C]
    x = weighted[destination].index_add(0, partner, weighted[source][merged])  # [Nd, C]
    size = tokens.size[destination].index_add(0, partner, tokens.size[source][merged])
    importance = tokens.importance[destination].scatter_reduce(
        0, partner, tokens.importance[source][merged], "amax"
    )
    size = torch.cat([tokens.size[source][stay], size])  # [N - K]
    result = Tokens(
        x=torch.cat([weighted[source][stay], x]) / size[:, None],
        size=size,
        importance=torch.cat([tokens.importance[source][stay], importance]),
        metric=torch.cat([tokens.metric[source][stay], tokens.metric[destination]]),
    )
    if _prefix(step) == 2:  # the distillation token is the first destination
        rows = torch.arange(len(size))
        first = torch.tensor([0, len(stay)])
        result = _take(result, torch.cat([first, rows[(rows != 0) & (rows != len(stay))]]))
    return result, decision


def match(metric: Tensor, step: Merge | MergeMost) -> MergeDecision:
    """Find each source's best destination and decide whether it merges (METHOD §1, step 3)."""
    source, destination = metric[0::2], metric[1::2]  # [Ns, D], [Nd, D]
    if not len(destination):  # only the class token is left
        nothing = source.new_full((1,), -torch.inf)
        index = torch.zeros(1, dtype=torch.long)
        verdict = choose(step, nothing)
        return MergeDecision(
            step, verdict.threshold, nothing, index, nothing, verdict.chosen,
            source.new_empty(1, 0), verdict.order,
        )  # fmt: skip
    similarity = source @ destination.mT  # [Ns, Nd]
    similarity[0] = -torch.inf
    similarity[:, : _prefix(step) - 1] = -torch.inf
    score = similarity.amax(1)
    partner = (similarity == score[:, None]).int().argmax(1)  # the lowest index on a tie
    runner_up = similarity.scatter(1, partner[:, None], -torch.inf).amax(1)
    verdict = choose(step, score)
    return MergeDecision(
        step, verdict.threshold, score, partner, runner_up, verdict.chosen, similarity,
        verdict.order,
    )  # fmt: skip


def prune(
    tokens: Tokens, step: Prune | PruneLeast | Fit, forced: Choice | None = None
) -> tuple[Tokens, PruneDecision]:
    """Keep important tokens, in their order or in that of importance (METHOD §1, step 5)."""
    verdict = choose(step, tokens.importance)
    decision = PruneDecision(
        step, verdict.threshold, tokens.importance, verdict.chosen, verdict.order
    )
    chosen, order = verdict.chosen, verdict.order
    if forced is not None:
        chosen, order = forced.chosen, forced.order
    return _take(tokens, chosen if order is None else order), decision


def _prefix(step: Merge | MergeMost) -> int:
    return step.prefix if isinstance(step, MergeMost) else 1


def _take(tokens: Tokens, which: Tensor) -> Tokens:
    """Some of the tokens, by a mask or by their rows."""
    return Tokens(
        tokens.x[which], tokens.size[which], tokens.importance[which], tokens.metric[which]
    )

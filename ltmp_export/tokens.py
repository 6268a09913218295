"""The token algebra of SPEC §1 for one image, eager and plain: merging and pruning by threshold.

Nothing here knows of networks. Shapes: N tokens, C channels, D channels per head; the class token
is row 0 of everything and is never merged away or pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ltmp_export.plan import Merge, Step


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


@dataclass(frozen=True)
class MergeDecision:
    """What a merge saw and chose.

    Attributes:
        threshold: The frozen θm.
        score: [ceil(N/2)] best similarity of each source (even row); -inf for the class token.
        partner: [ceil(N/2)] index of that best destination among the odd rows.
        runner_up: [ceil(N/2)] second-best similarity; -inf where there is none.
        chosen: [ceil(N/2)] bool, the sources that merge.
        similarity: [ceil(N/2), floor(N/2)] inner products; -inf for the class token.
    """

    threshold: float
    score: Tensor
    partner: Tensor
    runner_up: Tensor
    chosen: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class PruneDecision:
    """What a pruning saw and chose.

    Attributes:
        threshold: The frozen θp.
        score: [N] importance; +inf for the class token.
        chosen: [N] bool, the tokens that stay.
    """

    threshold: float
    score: Tensor
    chosen: Tensor


Decision: TypeAlias = MergeDecision | PruneDecision


@dataclass(frozen=True)
class Choice:
    """What somebody else chose in a step, to be taken instead of the own decision.

    Attributes:
        chosen: The sources that merge [ceil(N/2)], or the tokens that stay [N]; bool.
        partner: [ceil(N/2)] the destination of each source; None for a pruning.
    """

    chosen: Tensor
    partner: Tensor | None = None


def apply(step: Step, tokens: Tokens, forced: Choice | None = None) -> tuple[Tokens, Decision]:
    """Take one step of a plan; a forced choice is carried out, the own decision returned."""
    if isinstance(step, Merge):
        return merge(tokens, step.threshold, forced)
    return prune(tokens, step.threshold, forced)


def merge(
    tokens: Tokens, threshold: float, forced: Choice | None = None
) -> tuple[Tokens, MergeDecision]:
    """Merge every even row whose best odd row is more similar than `threshold` (SPEC §1, 3-4).

    Returns:
        The tokens in the order [unmerged sources ; all destinations], x the size-weighted mean,
        size the sum and importance the maximum of what went into each; and the decision.
    """
    decision = match(tokens.metric, threshold)
    source, destination = slice(0, None, 2), slice(1, None, 2)
    merged, partners = decision.chosen, decision.partner  # [Ns]
    if forced is not None and forced.partner is not None:
        merged, partners = forced.chosen, forced.partner
    partner = partners[merged]  # [K]

    weighted = tokens.x * tokens.size[:, None]  # [N, C]
    x = weighted[destination].index_add(0, partner, weighted[source][merged])  # [Nd, C]
    size = tokens.size[destination].index_add(0, partner, tokens.size[source][merged])
    importance = tokens.importance[destination].scatter_reduce(
        0, partner, tokens.importance[source][merged], "amax"
    )
    stay = ~merged
    sizes = torch.cat([tokens.size[source][stay], size])  # [N - K]
    result = Tokens(
        x=torch.cat([weighted[source][stay], x]) / sizes[:, None],
        size=sizes,
        importance=torch.cat([tokens.importance[source][stay], importance]),
        metric=torch.cat([tokens.metric[source][stay], tokens.metric[destination]]),
    )
    return result, decision


def match(metric: Tensor, threshold: float) -> MergeDecision:
    """Find each source's best destination and decide whether it merges (SPEC §1, step 3)."""
    source, destination = metric[0::2], metric[1::2]  # [Ns, D], [Nd, D]
    if not len(destination):  # only the class token is left
        nothing = source.new_full((1,), -torch.inf)
        index = torch.zeros(1, dtype=torch.long)
        none = torch.zeros(1, dtype=torch.bool)
        return MergeDecision(threshold, nothing, index, nothing, none, source.new_empty(1, 0))
    similarity = source @ destination.mT  # [Ns, Nd]
    similarity[0] = -torch.inf
    score = similarity.amax(1)
    partner = (similarity == score[:, None]).int().argmax(1)  # the lowest index on a tie
    others = similarity.scatter(1, partner[:, None], -torch.inf)
    return MergeDecision(threshold, score, partner, others.amax(1), score > threshold, similarity)


def prune(
    tokens: Tokens, threshold: float, forced: Choice | None = None
) -> tuple[Tokens, PruneDecision]:
    """Keep the tokens more important than `threshold`, in their order (SPEC §1, step 5)."""
    decision = PruneDecision(threshold, tokens.importance, tokens.importance > threshold)
    keep = decision.chosen if forced is None else forced.chosen
    kept = Tokens(tokens.x[keep], tokens.size[keep], tokens.importance[keep], tokens.metric[keep])
    return kept, decision

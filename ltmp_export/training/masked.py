"""The token algebra of METHOD §1 under a mask, in batches and differentiable.

No token is ever taken away: one that merges or is pruned stays in its row with 0 in the mask, so
that a threshold can learn what it would have contributed. Forward, the mask is 0 or 1; backward,
a decision has the gradient of σ((score - θ)/τ) (straight-through; arXiv 2307.10780, section 3.3).

Shapes: B images, N rows of tokens, C channels, D channels per head. P protected rows stand in front
and never go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.positions import Positions


@dataclass(frozen=True)
class Masked:
    """The tokens of a batch between attention and MLP of a block.

    Attributes:
        x: [B, N, C] token vectors.
        size: [B, N] patches each token stands for, at least 1.
        alive: [B, N] 1 for a token that is there, 0 for one that is gone; it carries the gradient.
        importance: [B, N] mean attention received; of protected rows +inf.
        metric: [B, N, D] unit vectors; their inner products are the similarities.
        positions: Where they lie, where attention knows of it.
        protected: P.
    """

    x: Tensor
    size: Tensor
    alive: Tensor
    importance: Tensor
    metric: Tensor
    positions: Positions | None = None
    protected: int = 1

    def take(self, order: Tensor) -> Masked:
        """The same tokens in another order [B, N]."""
        along, where = order[:, :, None], self.positions
        if where is not None:
            where = where.taken(lambda rows: rows.gather(1, along.expand_as(rows)))
        return replace(
            self,
            x=self.x.gather(1, along.expand_as(self.x)),
            size=self.size.gather(1, order),
            alive=self.alive.gather(1, order),
            importance=self.importance.gather(1, order),
            metric=self.metric.gather(1, along.expand_as(self.metric)),
            positions=where,
        )


def gate(score: Tensor, threshold: Tensor, tau: float) -> Tensor:
    """1 where a score is above the threshold, else 0; with the gradient of σ((score - θ)/τ)."""
    soft = torch.sigmoid((score - threshold) / tau)
    return (score > threshold).to(soft.dtype) + (soft - soft.detach())


def merge(
    tokens: Masked, similarity: Tensor, threshold: Tensor, tau: float, *, published: bool = False
) -> Masked:
    """Merge even rows into their most similar odd row where that is above the threshold.

    Args:
        tokens: Whose even rows are the sources and whose odd rows are the destinations.
        similarity: [B, ceil(N/2), floor(N/2)]; -inf where a pair must not merge.
        threshold: θm, a scalar.
        tau: Temperature of the gradient.
        published: Whether the threshold learns through the mask alone, as published: not through
            what merging does to vectors, sizes and importance.

    Returns:
        [protected ; sources ; destinations], those that merged with 0 in the mask; N is as it was.
    """
    best, partner = similarity.max(2)  # [B, Ns], the first of equals
    merges = gate(best, threshold, tau)  # [B, Ns]
    source = tokens.alive[:, 0::2]
    merging = (merges * source).detach() if published else merges * source
    pairs = F.one_hot(partner, similarity.shape[2]).to(merging.dtype) * merging[:, :, None]
    into = pairs.mT  # [B, Nd, Ns]
    weighted = tokens.x * tokens.size[:, :, None]  # [B, N, C]
    size = tokens.size[:, 1::2] + (into @ tokens.size[:, 0::2, None])[:, :, 0]  # [B, Nd]
    x = weighted[:, 1::2] + into @ weighted[:, 0::2]  # [B, Nd, C]
    received = torch.where(into > 0, tokens.importance[:, None, 0::2], -torch.inf).amax(2)
    importance = torch.maximum(tokens.importance[:, 1::2], received)
    merged = replace(
        tokens,
        x=torch.cat([tokens.x[:, 0::2], x / size[:, :, None]], 1),
        size=torch.cat([tokens.size[:, 0::2], size], 1),
        alive=torch.cat([_still(source, 1 - merges, published), tokens.alive[:, 1::2]], 1),
        importance=torch.cat([tokens.importance[:, 0::2], importance], 1),
        metric=torch.cat([tokens.metric[:, 0::2], tokens.metric[:, 1::2]], 1),
        positions=_merged_positions(tokens.positions, into.detach().round()),
    )
    return _protected_first(merged, source.shape[1])


def _protected_first(tokens: Masked, sources: int) -> Masked:
    """[sources ; destinations] → the same with protected rows in front, in their order."""
    protected = tokens.protected
    if protected < 2:
        return tokens
    rows = range(tokens.x.shape[1])
    front = [row // 2 + sources * (row % 2) for row in range(protected)]
    order = [*front, *(row for row in rows if row not in front)]
    return tokens.take(torch.tensor(order, device=tokens.x.device).expand(len(tokens.x), -1))


def _merged_positions(where: Positions | None, into: Tensor) -> Positions | None:
    """Of [sources ; destinations], which have no gradient."""
    if where is None:
        return None
    sources = where.taken(lambda rows: rows[:, 0::2])
    destinations = where.taken(lambda rows: rows[:, 1::2])
    received = destinations.merged(into, sources)
    return received.taken(lambda rows: torch.cat([sources.rows, rows], 1))


def prune(tokens: Masked, threshold: Tensor, tau: float, *, published: bool = False) -> Masked:
    """Take from the mask the tokens whose importance is not above the threshold θp.

    Of none protected the most important one stays, the first of equals.
    """
    keep = gate(tokens.importance, threshold, tau)
    if not tokens.protected:
        keep = _surviving(keep, tokens)
    return replace(tokens, alive=_still(tokens.alive, keep, published))


def _surviving(keep: Tensor, tokens: Masked) -> Tensor:
    """The gate [B, N] of tokens of which one stays in any case, the most important living one."""
    living = tokens.importance.masked_fill(tokens.alive == 0, -torch.inf)
    first = torch.arange(keep.shape[1], device=keep.device) == living.argmax(1, keepdim=True)
    return torch.where(first & (keep < 0.5), keep + 1, keep)  # backward it is as it was


def _still(alive: Tensor, stays: Tensor, published: bool) -> Tensor:
    """The mask of tokens that were there and stay.

    As published, a living token's mask is that of this decision alone, without the gradient of
    earlier ones; a dead token's stays that of the decision it died of.
    """
    return torch.where(alive > 0, stays, alive) if published else alive * stays


def similarities(metric: Tensor, protected: int) -> Tensor:
    """[B, N, D] → inner products [B, Ns, Nd] of even and odd rows; -inf for protected ones."""
    products = metric[:, 0::2] @ metric[:, 1::2].mT
    rows = torch.arange(metric.shape[1], device=metric.device) < protected
    return products.masked_fill(rows[0::2, None] | rows[None, 1::2], -torch.inf)

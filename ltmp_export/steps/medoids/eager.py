"""Keeping the patch tokens in the middle of clusters, in PyTorch (K-Medoids)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, first

_FARTHEST = 1.0  # lead from which on it makes no difference how much of one it is
_LOSES = -torch.finfo(torch.float32).tiny  # lead of what is as good as the first, and comes later


@dataclass(frozen=True, kw_only=True)
class Clustering(Decision):
    """Around whom clusters begin, and in each round whose they are and who is in the middle.

    Scores are leads: of the protected tokens; of each patch over the last that a cluster does, or
    the first that none does begin around; then for each round of each patch over the cheapest
    other of its cluster. Those of at least 0 are chosen. Each is relative.

    Attributes:
        into: For the same, the nearest centre; similarity is −distance, of the mean of all.
        patches: How many there are.
        medoids: [M] the rows among the patches that stay.
    """

    into: Partners
    patches: int
    medoids: Tensor

    @property
    def unit(self) -> Tensor:
        """Leads are relative as they are."""
        return torch.ones_like(self.score)

    @property
    def partners(self) -> Partners:
        """Whose clusters tokens are part of, in each round."""
        return self.into

    def row(self, index: int) -> int:
        """The token behind a lead."""
        patch = (index - self.protected) % self.patches
        return index if index < self.protected else self.protected + patch


def take(
    step: Medoids, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep the medoids, in the order of their clusters."""
    protected, x = tokens.protected, tokens.x[tokens.protected :]
    received = tokens.scores[IMPORTANCE][protected:]
    apart, patches = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"), len(x)
    cost = received * apart.sum(1)
    begins = received.argsort(descending=True, stable=True)[: step.tokens]
    ahead, assigned = [tokens.x.new_full((protected,), torch.inf), _above(received, begins)], []
    centres = begins if forced is None else _of_forced(step, forced, protected, patches, 0)
    for number in range(step.rounds):
        found = -apart[:, centres] / apart.mean()  # [n, M]
        assigned.append(found)
        into = _nearest(found) if forced is None else _partner(forced, protected, patches, number)
        ahead.append(_leads(cost, into))
        if forced is None:
            centres = torch.stack([_cheapest(cost, into == k) for k in range(step.tokens)])
        else:
            centres = _of_forced(step, forced, protected, patches, number + 1)
    score = torch.cat(ahead)
    decision = Clustering(
        step, 0.0, score, choose(step, score).chosen, _order(protected, begins), protected,
        into=_partners(assigned, protected, patches), patches=patches, medoids=centres,
    )  # fmt: skip
    rows = torch.cat([torch.arange(protected), protected + centres])
    return replace(tokens.take(rows), scores={}), decision


def choose(step: Medoids, score: Tensor) -> Verdict:
    """Those ahead of the others; in which order clusters begin, scores of both sides tell."""
    return Verdict(score >= 0, None, 0.0)


def _order(protected: int, begins: Tensor) -> Tensor:
    return torch.cat([torch.arange(protected), protected + begins])


def _above(received: Tensor, begins: Tensor) -> Tensor:
    """[n] by how much each is above the middle between the last chosen and the next."""
    chosen = torch.zeros(len(received), dtype=torch.bool)
    chosen[begins] = True
    middle = first(received, len(begins))[0].threshold
    lead = received / max(middle, -_LOSES) - 1
    return _signed(lead, chosen)


def _leads(cost: Tensor, into: Tensor) -> Tensor:
    """[n] by how much each is cheaper than the cheapest other of its cluster."""
    same = into[None] == into[:, None]
    others = torch.where(same & ~torch.eye(len(cost), dtype=torch.bool), cost, torch.inf)
    best = others.amin(1)
    lead = best / cost.clamp_min(-_LOSES) - 1
    ranks = torch.arange(len(cost))
    earlier = (others == cost[:, None]) & (ranks[None] < ranks[:, None])
    return _signed(lead, (cost <= best) & ~earlier.any(1))


def _signed(lead: Tensor, chosen: Tensor) -> Tensor:
    """Leads of those chosen at least 0, of the others below it, all within bounds."""
    lead = lead.clamp(-_FARTHEST, _FARTHEST)
    return torch.where(chosen, lead.clamp_min(0.0), lead.clamp_max(_LOSES))


def _nearest(similarity: Tensor) -> Tensor:
    """[n, M] → [n] the first of the most similar."""
    return (similarity == similarity.amax(1, keepdim=True)).int().argmax(1)


def _cheapest(cost: Tensor, mine: Tensor) -> Tensor:
    """The first of the cheapest of those that are in a cluster; row 0 where none is."""
    held = torch.where(mine, cost, torch.inf)
    return (held == held.amin()).int().argmax()


def _partners(assigned: list[Tensor], protected: int, patches: int) -> Partners:
    """The nearest centres in all rounds, in front those who have none."""
    found = torch.cat(assigned)  # [rounds · n, M]
    front = found.new_zeros((protected + patches, found.shape[1]))
    similarity = torch.cat([front, found])
    moved = torch.ones(len(similarity), dtype=torch.bool)
    moved[: protected + patches] = False
    index, best = _nearest(similarity), similarity.amax(1)
    runner_up = similarity.scatter(1, index[:, None], -torch.inf).amax(1)
    return Partners(moved, index, best, runner_up, similarity)


def _partner(forced: Choice, protected: int, patches: int, number: int) -> Tensor:
    """[n] whose cluster each patch is to be part of in a round."""
    if forced.partner is None:
        raise ValueError("medoids without clusters")
    start = protected + patches * (1 + number)
    return forced.partner[start : start + patches]


def _of_forced(step: Medoids, forced: Choice, protected: int, patches: int, number: int) -> Tensor:
    """[M] the centres after so many rounds of somebody else."""
    if not number:
        if forced.order is None:
            raise ValueError("medoids without an order")
        return forced.order[protected:] - protected
    start = protected + patches * number
    chosen = forced.chosen[start : start + patches]
    into = _partner(forced, protected, patches, number - 1)
    mine = chosen & (into[None] == torch.arange(step.tokens)[:, None])  # [M, n]
    return mine.int().argmax(1)

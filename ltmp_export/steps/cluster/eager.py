"""Clustering patch tokens around peaks of their density, in PyTorch (DPC-KNN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, first

_LEAST = 1e-6  # added to the sum of weights


@dataclass(frozen=True, kw_only=True)
class Clustering(Decision):
    """Who is a centre, and whose cluster each other is part of.

    Attributes:
        into: Of all tokens, among the centres in their order; similarity is −distance.
    """

    into: Partners

    @property
    def partners(self) -> Partners:
        """Whose clusters those are part of that are no centres."""
        return self.into


def take(
    step: Cluster, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Means of clusters, in the order of the centres' scores; attention knows no sizes."""
    protected, x = tokens.protected, tokens.x[tokens.protected :]
    apart = torch.cdist(x, x) / x.shape[1] ** 0.5
    score = torch.cat([x.new_full((protected,), torch.inf), scores(step, apart)])
    verdict = choose(step, score)
    order = verdict.order if forced is None else forced.order
    places = torch.as_tensor(order)[protected:] - protected  # [M]
    moved = torch.ones(len(score), dtype=torch.bool)
    moved[:protected] = moved[protected + places] = False
    found = _partners(apart, places, moved, protected)
    into = found.index.clone()
    if forced is not None and forced.partner is not None:
        into = forced.partner.clone()
    into[protected + places] = torch.arange(len(places))
    going = F.one_hot(into[protected:], step.tokens).to(x.dtype).mT  # [M, n]
    members = tokens.members
    if members is not None:
        members = torch.cat([members[:protected], going @ members[protected:]])
    brought = going * _weights(step, x, weights)
    mean = brought @ x / (brought.sum(1, keepdim=True) + _LEAST)
    made = torch.cat([tokens.x[:protected], mean])
    decision = Clustering(
        step, verdict.threshold, score, verdict.chosen, verdict.order, protected, into=found
    )
    left = replace(tokens, x=made, size=made.new_ones(len(made)), scores={}, members=members)
    return left, decision


def choose(step: Cluster, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the highest, in the order of their scores."""
    number = int(score.isposinf().sum()) + step.tokens
    verdict, ranking = first(score, number)
    return verdict._replace(order=ranking[:number])


def scores(step: Cluster, apart: Tensor) -> Tensor:
    """[n, n] distances → [n] density times peak."""
    near = apart.square().topk(step.neighbours, largest=False).values  # itself among them
    density = (-near.mean(1)).exp()
    higher = density[None] > density[:, None]
    return density * torch.where(higher, apart, apart.max()).amin(1)


def _partners(apart: Tensor, places: Tensor, moved: Tensor, protected: int) -> Partners:
    """The nearest of the centres for all tokens, the protected ones among them."""
    similarity = -F.pad(apart[:, places], (0, 0, protected, 0))  # [N, M]
    best = similarity.amax(1)
    index = (similarity == best[:, None]).int().argmax(1)  # the first on a tie
    runner_up = similarity.scatter(1, index[:, None], -torch.inf).amax(1)
    return Partners(moved, index, best, runner_up, similarity)


def _weights(step: Cluster, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """[n] of the mean."""
    if not step.weighted:
        return x.new_ones(len(x))
    weight, bias = (weights[f"{step.name}.score.{n}"].to(x.dtype) for n in ("weight", "bias"))
    return F.linear(x, weight, bias)[:, 0].exp()

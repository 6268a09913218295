"""Clustering patch tokens around peaks of their density, in PyTorch (DPC-KNN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, first

_LEAST = 1e-6  # added to the sum of weights
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Clustering(Decision):
    """Who is a centre, and whose cluster each other is part of.

    Distances are roots of what is computed by inner products, whose errors are those of the longest
    vectors' squares; so differences of scores, and of distances to centres, are those of squares.

    Attributes:
        into: Of all tokens, among the centres in their order; similarity is −distance², in squares
            of the longest.
        apart: [n, n] distances of patches.
        density: [n] of patches.
        longest: How far apart vectors of such lengths can be.
    """

    into: Partners
    apart: Tensor
    density: Tensor
    longest: Tensor

    @property
    def unit(self) -> Tensor:
        """Of squares: (score + threshold) (score − threshold), in those of the longest."""
        scale = self._of_patches((self.density * self.longest).square(), 1.0)
        both = self.score + max(self.threshold, 0.0)
        return scale / torch.where(both.isfinite(), both, 1.0).clamp_min(_SMALLEST)

    @property
    def partners(self) -> Partners:
        """Whose clusters those are part of that are no centres."""
        return self.into

    def compared(self, score: Tensor) -> tuple[Decision, Tensor]:
        """Of two patches of nearly the same density either may be the denser one."""
        first = self.protected
        peaks, needed = _peaks(self.apart, self.density)
        open_to = self.density[:, None] * peaks
        theirs, scale = score[first:, None], self.density * self.longest
        off = (theirs * theirs.abs() - open_to.square()).abs() / scale.square()[:, None]
        off = torch.maximum(off, needed / (1 + self.longest.square()))
        taken = off.argmin(1, keepdim=True)
        own = torch.cat([self.score[:first], open_to.gather(1, taken)[:, 0]])
        verdict = choose(cast(Cluster, self.step), own)
        followed = replace(
            self, score=own, threshold=verdict.threshold, chosen=verdict.chosen, order=verdict.order
        )
        return followed, self._of_patches(off.gather(1, taken)[:, 0], 0.0)

    def _of_patches(self, values: Tensor, others: float) -> Tensor:
        """[n] of patches → of all tokens."""
        return F.pad(values, (self.protected, 0), value=others)


def take(
    step: Cluster, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Means of clusters, in the order of the centres' scores; attention knows no sizes."""
    protected, x = tokens.protected, tokens.x[tokens.protected :]
    apart = torch.cdist(x, x) / x.shape[1] ** 0.5
    density = _density(step, apart)
    score = torch.cat([x.new_full((protected,), torch.inf), _scores(apart, density)])
    verdict = choose(step, score)
    order = verdict.order if forced is None else forced.order
    places = torch.as_tensor(order)[protected:] - protected  # [M]
    moved = torch.ones(len(score), dtype=torch.bool)
    moved[:protected] = moved[protected + places] = False
    longest = (2 * x.norm(dim=1).amax() / x.shape[1] ** 0.5).clamp_min(_SMALLEST)
    found = _partners(apart / longest, places, moved, protected)
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
        step, verdict.threshold, score, verdict.chosen, verdict.order, protected,
        into=found, apart=apart, density=density, longest=longest,
    )  # fmt: skip
    left = replace(tokens, x=made, size=made.new_ones(len(made)), scores={}, members=members)
    return left, decision


def choose(step: Cluster, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the highest, in the order of their scores."""
    number = int(score.isposinf().sum()) + step.tokens
    verdict, ranking = first(score, number)
    return verdict._replace(order=ranking[:number])


def _density(step: Cluster, apart: Tensor) -> Tensor:
    """[n, n] distances → [n]."""
    near = apart.square().topk(step.neighbours, largest=False).values  # itself among them
    return (-near.mean(1)).exp()


def _scores(apart: Tensor, density: Tensor) -> Tensor:
    """[n] density times peak."""
    higher = density[None] > density[:, None]
    return density * torch.where(higher, apart, apart.max()).amin(1)


def _peaks(apart: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """[n, n + 1] what each peak may be, and by how much rounding must be off for it, relative.

    A distance is the peak where its patch is denser, and none that is nearer; the longest, in the
    last column, where none is denser at all.
    """
    number = len(density)
    gap = (density[None] - density[:, None]) / density[:, None].clamp_min(_SMALLEST)
    denser = gap.clamp_min(0.0)
    ordered, ranks = apart.sort(1)
    nearer = F.pad(denser.gather(1, ranks).cummax(1).values, (1, 0))  # of all before, and of all
    needed = torch.maximum(nearer[:, :-1], (-gap).clamp_min(0.0).gather(1, ranks))
    needed[ranks == torch.arange(number)[:, None]] = torch.inf  # itself
    peaks = torch.cat([ordered, apart.max().expand(number, 1)], 1)
    return peaks, torch.cat([needed, nearer[:, -1:]], 1)


def _partners(apart: Tensor, places: Tensor, moved: Tensor, protected: int) -> Partners:
    """The nearest of the centres for all tokens, the protected ones among them."""
    similarity = -F.pad(apart[:, places].square(), (0, 0, protected, 0))  # [N, M]
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

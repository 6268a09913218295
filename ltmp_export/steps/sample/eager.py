"""Sampling tokens by the class token's attention, in PyTorch (ATS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltmp_export.plan.scores import CLASS_VALUES
from ltmp_export.steps.sample.step import Sample
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict

_LOSES = -torch.finfo(torch.float32).tiny  # lead of what is as near as the first, and comes later


@dataclass(frozen=True, kw_only=True)
class Sampling(Decision):
    """Whom points fall on; scores are leads at the point where they are largest.

    The lead of the nearest is by how much nearer it is than the second nearest, that of any other
    by how much farther than the nearest, below 0.
    """

    @property
    def unit(self) -> Tensor:
        """Errors of running shares are absolute."""
        return torch.ones_like(self.score)


def take(
    step: Sample, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep those that some point takes, in their order."""
    protected, values = tokens.protected, tokens.scores[CLASS_VALUES]
    own = values[protected:]
    running = own.cumsum(0) / (own.sum() + step.floor)
    score = torch.cat([values[:protected], leads(step, running)])
    verdict = choose(step, score)
    decision = Sampling(step, 0.0, score, verdict.chosen, None, protected)
    return tokens.take(verdict.chosen if forced is None else forced.chosen), decision


def choose(step: Sample, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and those that lead somewhere."""
    return Verdict(score >= 0, None, 0.0)


def leads(step: Sample, running: Tensor) -> Tensor:
    """[n] running shares → [n] the largest lead of each."""
    points = torch.tensor(step.points, dtype=running.dtype)
    apart = (running - points[:, None]).abs()  # [K, n]
    least, places = apart.amin(1, keepdim=True), torch.arange(len(running))
    nearest = (apart == least).int().argmax(1, keepdim=True) == places  # [K, n], the first
    second = torch.where(nearest, torch.inf, apart).amin(1, keepdim=True)
    ahead = torch.where(nearest, second - apart, (least - apart).clamp_max(_LOSES))
    return ahead.amax(0).clamp(-1.0, 1.0)

"""Merging a fixed number, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.plan import pairing
from ltmp_export.steps.matching import merge
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first


def take(
    step: MergeMost, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Merge even rows into their most similar odd rows, see `matching.merge`."""
    return merge(step, tokens, forced)


def choose(step: MergeMost, score: Tensor) -> Verdict:
    """The sources of the highest scores; ranked, the others by score behind the protected."""
    verdict, ranking = first(score, step.count)
    if not step.ranked:
        return verdict
    others = ranking[step.count :]
    front = pairing.protected_sources(step.prefix)
    return verdict._replace(order=torch.cat([torch.arange(front), others[others >= front]]))

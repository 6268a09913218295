"""Keeping what the class token attends to, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first, keep


def take(
    step: Fuse, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep some, and fuse the rest; every token then stands for itself in attention."""
    score = tokens.scores[CLASS_ATTENTION]
    kept, decision = keep(step, tokens, score, forced)
    x, where, members = kept.x, kept.positions, kept.members
    if step.fused:
        rest = ~(decision if forced is None else forced).chosen
        x = torch.cat([x, score[rest][None] @ tokens.x[rest]])
        if tokens.positions is not None and where is not None:
            last = tokens.positions.fused(rest, score)
            where = where.taken(lambda rows: torch.cat([rows, last.rows]))
        if tokens.members is not None and members is not None:
            members = torch.cat([members, tokens.members[rest].sum(0, keepdim=True)])
    size = x.new_ones(len(x))
    left = replace(tokens, x=x, size=size, scores={}, positions=where, members=members)
    return left, decision


def choose(step: Fuse, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the K highest, in the order of their scores."""
    protected = int(score.isposinf().sum())
    number = protected + step.kept(len(score), protected)
    verdict, ranking = first(score, number)
    return verdict._replace(order=ranking[:number])

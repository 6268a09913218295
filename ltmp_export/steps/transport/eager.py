"""Mixing patch tokens by shares that balance tokens and centres, in PyTorch (Sinkhorn)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.tokens import Choice, Tokens
from ltmp_export.steps.transport.step import Transport


def take(
    step: Transport, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, None]:
    """Mix the tokens behind the protected ones; every one then stands for itself."""
    protected = tokens.protected
    mixed = mix(step, tokens.x[protected:], weights)
    x = torch.cat([tokens.x[:protected], mixed])
    return replace(tokens, x=x, size=x.new_ones(len(x)), members=None), None


def mix(step: Transport, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """[N, C] patch tokens → [M, C], see `Transport`."""
    unit = F.normalize(x, dim=-1)
    centres = F.normalize(weights[f"{step.name}.v"].to(x.dtype), dim=-1)
    z = centres @ unit.mT / step.eps  # [M, N]
    c = -math.log(sum(z.shape))
    b = z.new_zeros(z.shape[1])
    a = z.new_zeros(z.shape[0])
    for _ in range(step.rounds):
        a = c - (z + b).logsumexp(1)
        b = c - (z + a[:, None]).logsumexp(0)
    return (z + a[:, None] + b - c).exp() @ unit

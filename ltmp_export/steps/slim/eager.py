"""Mixing patch tokens by shares that layers give them, in PyTorch (SiT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.slim.step import Slim
from ltmp_export.steps.tokens import Choice, Tokens


def take(
    step: Slim, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, None]:
    """Mix the tokens behind the protected ones; every one then stands for itself."""
    protected = tokens.protected
    mixed = mix(step, tokens.x[protected:], weights)
    x = torch.cat([tokens.x[:protected], mixed])
    return replace(tokens, x=x, size=x.new_ones(len(x)), members=None), None


def mix(step: Slim, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """[N, C] patch tokens → [M, C], see `Slim`."""

    def of(layer: str) -> tuple[Tensor, Tensor]:
        named = (weights[f"{step.name}.weight.{layer}.{part}"] for part in ("weight", "bias"))
        weight, bias = (value.to(x.dtype) for value in named)
        return weight, bias

    normed = F.layer_norm(x, x.shape[-1:], *of("0"), step.eps)
    scores = F.linear(F.gelu(F.linear(normed, *of("1"))), *of("3"))  # [N, M]
    scale = weights[f"{step.name}.scale"].to(x.dtype).reshape(())
    return (scale * scores).softmax(0).mT @ x

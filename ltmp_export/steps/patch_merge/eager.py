"""PatchMerger, in PyTorch (arXiv 2202.12015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.steps.tokens import Choice, Tokens


def take(
    step: PatchMerge, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, None]:
    """Mix the tokens behind the protected ones; every one then stands for itself."""
    protected = tokens.protected
    mixed = mix(step, tokens.x[protected:], weights)
    x = torch.cat([tokens.x[:protected], mixed])
    return replace(tokens, x=x, size=x.new_ones(len(x)), members=None), None


def mix(step: PatchMerge, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """[N, C] patch tokens → [M, C], see `PatchMerge`."""
    queries, weight, bias = (
        weights[f"{step.name}.{part}"].to(x.dtype)
        for part in ("queries", "norm.weight", "norm.bias")
    )  # [M, C], [C], [C]
    normed = layer_norm(x, x.shape[-1:], weight, bias, step.eps)
    scores = step.scale * queries @ normed.mT  # [M, N]
    return scores.softmax(-1) @ normed

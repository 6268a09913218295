"""MobileViT in PyTorch, on timm's own submodules, one image under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models.mobilevit import MobileVitBlock
from torch import Tensor

from ltmp_export.backbones.hybrid.eager import Journey, fold, living, unfold
from ltmp_export.backbones.trace import Trace
from ltmp_export.backbones.vit import eager as vit
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.tokens import Choice, Tokens


def run(
    model: Any, plan: Plan, image: Tensor, forced: Sequence[Sequence[Choice]] | None = None
) -> Trace:
    """Classify one normalised image [channels, height, width], see `reference.Reference.run`."""
    journey = Journey(plan, forced or ())
    x = model.stem(image[None])
    for stage in model.stages:
        for block in stage:
            x = _patches(block, x, journey) if isinstance(block, MobileVitBlock) else block(x)
    return journey.trace(model.head(model.final_conv(x))[0])


def _patches(unit: Any, x: Tensor, journey: Journey) -> Tensor:
    """A MobileViT block; its first transformer may merge, and with the tokens what it was given."""
    given, patch = x, tuple(unit.patch_size)
    rows, grid = unfold(unit.conv_1x1(unit.conv_kxk(x)), patch)
    tokens = journey.enter(rows)
    for number, block in enumerate(unit.transformer):
        tokens = _block(block, tokens, patch[0] * patch[1], journey)
        if not number:
            given = fold(journey.along(tokens, unfold(given, patch)[0]), patch, grid)
    x = fold(living(tokens, unit.norm(tokens.x)), patch, grid)
    fused: Tensor = unit.conv_fusion(torch.cat((given, unit.conv_proj(x)), dim=1))
    return fused


def _block(block: Any, tokens: Tokens, sets: int, journey: Journey) -> Tokens:
    """One transformer block on tokens [S · N, C], whose sets attend to themselves alone."""
    x, size = block.norm1(tokens.x), tokens.size
    q, k, v, _ = vit.project(block.attn, x.reshape(sets, len(x) // sets, -1))  # [S, H, N, D] each
    weights = vit.scores(block.attn, q, k, size.reshape(sets, -1)).softmax(-1)
    attended = vit.mix(block.attn, weights, v).flatten(0, 1)
    left = journey.reduce(replace(tokens, x=tokens.x + block.ls1(attended)))
    return journey.leave(left, vit.feed_forward(block, left.x))

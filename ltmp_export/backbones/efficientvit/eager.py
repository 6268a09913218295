"""EfficientViT of MIT in PyTorch, on timm's own submodules, one image under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models.efficientvit_mit import EfficientVitBlock
from torch import Tensor

from ltmp_export.backbones.hybrid.eager import Journey, fold, unfold
from ltmp_export.backbones.trace import Trace
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.tokens import Choice

_CELL = 1, 1


def run(
    model: Any, plan: Plan, image: Tensor, forced: Sequence[Sequence[Choice]] | None = None
) -> Trace:
    """Classify one normalised image [channels, height, width], see `reference.Reference.run`."""
    journey = Journey(plan, forced or ())
    x = model.stem(image[None])
    for stage in model.stages:
        for block in stage.blocks:
            x = _cells(block, x, journey) if isinstance(block, EfficientVitBlock) else block(x)
    return journey.trace(model.head(x)[0])


def _cells(block: Any, x: Tensor, journey: Journey) -> Tensor:
    """An EfficientViT block: what its attention leaves may be merged; an empty cell is zero."""
    journey.enter(unfold(x, _CELL)[0])
    rows, grid = unfold(block.context_module(x), _CELL)
    left = journey.reduce(journey.enter(rows))
    x = block.local_module(fold(left.x, _CELL, grid))
    journey.leave(left, unfold(x, _CELL)[0])
    return x

"""The first blocks of a checkpoint: all that a block can get wrong, in a fraction of the time."""

from __future__ import annotations

import copy
from dataclasses import replace

from ltmp_export.checkpoint.load import Checkpoint

BLOCKS = 3


def shallow(checkpoint: Checkpoint, depth: int = BLOCKS) -> Checkpoint:
    """A checkpoint of its first blocks, the head behind them."""
    model = copy.deepcopy(checkpoint.model)
    model.blocks = model.blocks[:depth]
    plan = replace(
        checkpoint.plan,
        blocks=checkpoint.plan.blocks[:depth],
        before={at: step for at, step in checkpoint.plan.before.items() if at <= depth},
    )
    vit = replace(checkpoint.vit, depth=depth)
    return replace(checkpoint, model=model, plan=plan, geometry=vit)

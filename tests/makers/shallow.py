"""The first blocks of a checkpoint: all that a block can get wrong, in a fraction of the time."""

from __future__ import annotations

import argparse
import copy
import re
from dataclasses import replace
from pathlib import Path

import torch

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


def write_shallow(source: Path, place: Path, depth: int = BLOCKS) -> None:
    """The same of a training checkpoint's file."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(source, map_location="cpu", weights_only=True)
    inner = re.compile(r"blocks\.(\d+)\.")
    content["state_dict"] = {
        key: value
        for key, value in content["state_dict"].items()
        if (block := inner.match(key)) is None or int(block[1]) < depth
    }
    torch.save(content, place)

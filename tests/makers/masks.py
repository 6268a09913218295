"""Learned masks for the digits ViT: 64 patches into 16 targets, one of which nothing reaches."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.plan.cells import lies_in
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.merge_mask.step import MergeMask

TARGETS = 16


def near_cells(side: int, divided: int) -> Tensor:
    """Weights [N, P] of patches in the cells of a grid, and of some of the others."""
    cells = torch.tensor(lies_in((side, side), (divided, divided)))
    mask = torch.nn.functional.one_hot(cells, divided**2).float()
    noise = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    return mask + 0.4 * noise * (noise > 0.5)


def weights(*blocks: int) -> dict[str, Tensor]:
    """Of the masks of these blocks."""
    mask = near_cells(8, 4)
    mask[:, 5] = -9
    own = {"ltm.mask0": mask}
    for block in blocks:
        own[f"blocks.{block}.ltm.center"] = torch.full((128,), 0.1)
        own[f"blocks.{block}.ltm.step"] = torch.tensor([2.0])
    return own


def content(base: Mapping[str, Tensor], *blocks: int, **args: Any) -> dict[str, Any]:
    """What a file holds of the digits ViT with masks, of block 2 alone and soft unless stated."""
    named = argparse.Namespace(**({"hard": False} | args))
    state = {**base, **weights(*(blocks or (2,)))}
    return {"state_dict": state, "arch": "ltm_transformer_vit_digits", "args": named}


def digits(checkpoint: Checkpoint, *, hard: bool, restore: bool) -> Checkpoint:
    """The same ViT with other switches."""
    blocks = range(6) if restore else (2,)
    steps = {
        block: MergeMask(
            f"blocks.{block}.ltm", "ltm.mask0", 64, TARGETS, first=block == blocks[0], hard=hard,
            restore=restore,
        )
        for block in blocks
    }  # fmt: skip
    taken = tuple((steps[block],) if block in steps else () for block in range(6))
    return replace(checkpoint, plan=Plan("ltm_transformer", taken, parameters=weights(*blocks)))

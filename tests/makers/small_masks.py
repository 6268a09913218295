"""A small plan of masks for the random ViT `random_vits.DEEP`: 36 patches, 4 blocks, width 64."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ltmp_export.plan.cells import lies_in
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.merge_mask.step import MergeMask

FIRST = "ltm.mask0"


def masks(hard: bool, restore: bool, step: float = 0.5) -> Plan:
    """Masks of 9 cells of the patches, with weights elsewhere, and of one target without any."""
    generator = torch.Generator().manual_seed(4)
    cells = torch.tensor(lies_in((6, 6), (3, 3)))
    first = F.one_hot(cells, 9) + 0.3 * torch.rand(36, 9, generator=generator)
    first[:, 5] = -100.0
    blocks = range(4) if restore else range(1, 2)
    own, steps = {FIRST: first}, {}
    for block in blocks:
        name = f"blocks.{block}.ltm"
        first_one = block == blocks[0]
        steps[block] = MergeMask(name, FIRST, 36, 9, first=first_one, hard=hard, restore=restore)
        own |= {f"{name}.center": torch.randn(64, generator=generator)}
        own |= {f"{name}.step": torch.tensor([step])}
    taken = tuple((steps[block],) if block in steps else () for block in range(4))
    return Plan("ltm_transformer", taken, parameters=own)

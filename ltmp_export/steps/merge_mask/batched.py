"""Merging by a learned mask, of a batch and differentiable.

Of a hard mask each patch has one weight forward; backward all have the gradients of the soft one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.batches import Batch
from ltmp_export.steps.merge_mask.eager import column_shares, mask
from ltmp_export.steps.merge_mask.step import EPS, MASK, MergeMask


def take(step: MergeMask, tokens: Batch, weights: Mapping[str, Tensor]) -> Batch:
    """Patches [B, S · N, C] → [B, S · P, C] behind the protected ones; the mask is handed on."""
    protected = tokens.protected
    z = _by_set(step.sets, tokens.x[:, protected:])  # [B, S, N, C]
    before = weights[step.start] if step.first else tokens.handed[MASK]
    used = mask(step, z, before, weights).relu()
    if step.hard:
        used = _each_to_one(used)
    merged = column_shares(used).mT @ z  # [B, S, P, C]
    return replace(
        tokens,
        x=torch.cat([tokens.x[:, :protected], merged.flatten(1, 2)], 1),
        size=torch.cat([tokens.size[:, :protected], _living(step, used, protected)], 1),
        scores={},
        handed={MASK: used},
    )


def restore(
    step: MergeMask, given: Batch, made: Batch, left: Batch, weights: Mapping[str, Tensor]
) -> Batch:
    """Z + rownorm(G) · (what the MLP made of X̃ - X̃); protected rows as the MLP left them."""
    protected, used = given.protected, made.handed[MASK]
    change = _by_set(step.sets, (left.x - made.x)[:, protected:])  # [B, S, P, C]
    shares = used / (used.sum(3, keepdim=True) + EPS)
    patches = given.x[:, protected:] + (shares @ change).flatten(1, 2)
    x = torch.cat([left.x[:, :protected], patches], 1)
    return replace(given, x=x, scores={}, handed=made.handed)


def _by_set(sets: int, x: Tensor) -> Tensor:
    """[B, S · n, C] → [B, S, n, C]."""
    return x.reshape(len(x), sets, -1, x.shape[2])


def _each_to_one(soft: Tensor) -> Tensor:
    """[..., N, P] with the largest weight of each row alone, of equal ones the first."""
    index = (soft == soft.amax(-1, keepdim=True)).int().argmax(-1)
    alone = soft * F.one_hot(index, soft.shape[-1])
    return soft + (alone - soft).detach()


def _living(step: MergeMask, used: Tensor, protected: int) -> Tensor:
    """[B, S · P] 1 for targets that stand for a token, 0 for columns of nothing but 0."""
    alive = used.amax(2) > 0  # [B, S, P]
    if not protected:
        alive = alive | ~alive.any(2, keepdim=True)
    if step.restore:
        alive = torch.ones_like(alive)
    return alive.to(used.dtype).flatten(1)

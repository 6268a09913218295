"""Merging patches into the crucial ones, of a batch and differentiable.

Who stays, and who merges into whom, has no gradient; the vectors, and the weights of their mean,
have theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.batches import Batch
from ltmp_export.steps.mergence.step import IMPORTANCE, SIMILARITY, SIZE, Mergence


def take(step: Mergence, tokens: Batch, weights: Mapping[str, Tensor]) -> Batch:
    """Keep some, merge each other into one of them."""
    protected = tokens.protected
    score = tokens.scores[CLASS_ATTENTION].detach()[:, protected:]  # [B, n]
    ranking = protected + score.argsort(dim=1, descending=True, stable=True)
    kept = tokens.rows(ranking[:, : step.keep].sort(dim=1).values)  # K of them
    moving = tokens.rows(ranking[:, step.keep :].sort(dim=1).values)
    cosine = F.normalize(moving.x, dim=-1) @ F.normalize(kept.x, dim=-1).mT  # [B, n - K, K]
    best = cosine.amax(2)
    into = (cosine == best[:, :, None]).int().argmax(2)  # the lowest row on a tie
    going = F.one_hot(into, step.keep).to(cosine.dtype).mT  # [B, K, n - K]
    own = _weights(step, kept, torch.ones_like(kept.size))  # [B, K]
    brought = going * _weights(step, moving, best)[:, None]
    total = own + brought.sum(2)
    x = (own[:, :, None] * kept.x + brought @ moving.x) / total[:, :, None]
    owned = kept.patches_owned() + (going @ moving.patches_owned()[:, :, None])[:, :, 0]
    front = tokens.patches_owned()[:, :protected]
    where = tokens.positions
    if where is not None and kept.positions is not None and moving.positions is not None:
        received = kept.positions.merged(going.detach(), moving.positions)
        where = where.taken(lambda rows: torch.cat([rows[:, :protected], received.rows], 1))
    return replace(
        tokens,
        x=torch.cat([tokens.x[:, :protected], x], 1),
        size=tokens.size[:, : protected + step.keep],
        scores={},
        owned=torch.cat([front, owned], 1),
        positions=where,
    )


def _weights(step: Mergence, tokens: Batch, cosine: Tensor) -> Tensor:
    """[B, n] of the mean; `cosine` of those that stay is 1."""
    if step.weights == SIZE:
        return tokens.patches_owned()
    if step.weights == IMPORTANCE:
        return tokens.scores[CLASS_ATTENTION]
    return cosine.clamp(min=0) if step.weights == SIMILARITY else torch.ones_like(cosine)

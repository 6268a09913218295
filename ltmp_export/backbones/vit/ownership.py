"""Which token each patch of one image is part of, in PyTorch, and what a model gives by that.

Each token carries the patches that it is made of, as a row of 0 and 1; merging adds rows, pruning
drops them. Shapes: N tokens, P patches, C channels, h x w the grid of patches.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ltmp_export.plan.outputs import DENSE, SIZES, TOKEN_MAP, TOKENS
from ltmp_export.steps.tokens import Tokens


def first(tokens: Tokens) -> tuple[Tokens, Tensor]:
    """Tokens before the first block, each patch its own; and room for what is pruned [P, C]."""
    patches = tokens.x[tokens.protected :]
    own = torch.eye(len(patches), dtype=tokens.x.dtype)
    members = torch.cat([own.new_zeros(tokens.protected, len(patches)), own])
    return replace(tokens, members=members), torch.zeros_like(patches)


def note(before: Tokens, after: Tokens, pruned: Tensor | None) -> None:
    """Put down in `pruned` the vectors that owned the patches which a step has pruned."""
    if pruned is None or before.members is None or after.members is None:
        return
    gone = before.members.any(0) & ~after.members.any(0)
    pruned[gone] = before.x[before.members.argmax(0)[gone]]


def outputs(
    model: Any, tokens: Tokens, pruned: Tensor | None, wanted: Collection[str]
) -> dict[str, Tensor]:
    """What is asked for of the tokens behind the last block, see `plan.outputs`.

    Args:
        model: timm's model.
        tokens: These.
        pruned: [P, C] of pruned patches what owned them.
        wanted: Names.
    """
    normed = model.norm(tokens.x)
    found = {}
    if TOKENS in wanted:
        found[TOKENS] = torch.where(tokens.size[:, None] > 0, normed, 0.0)
    members = tokens.members
    if members is None or pruned is None:
        return found
    living, owner = members.any(0), members.argmax(0)
    sizes = members.sum(1)
    sizes[: tokens.protected] = 1
    on_grid = torch.where(living[:, None], normed[owner], model.norm(pruned))
    made = {
        SIZES: sizes,
        TOKEN_MAP: torch.where(living, owner, -1),
        DENSE: on_grid.T.reshape(-1, *model.patch_embed.grid_size),
    }
    return found | {name: made[name] for name in made if name in wanted}

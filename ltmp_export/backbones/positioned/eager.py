"""What places do to attention in PyTorch: queries and keys turned, scores biased.

Unmerged tokens take what timm's own table has for them; that of merged ones is computed as timm
computes the table. Shapes: `...` is [B] or nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    apply_rot_embed,
)
from torch import Tensor

from ltmp_export.plan import positions
from ltmp_export.plan.plan import Plan
from ltmp_export.steps import positions as steps
from ltmp_export.steps.positions import Positions


@dataclass(frozen=True)
class Bound:
    """What places do in one block's attention.

    Attributes:
        rule: Of the model.
        block: Its index.
        where: The tokens' places, or None where none are known.
    """

    rule: Still
    block: int
    where: Positions | None

    def turned(self, x: Tensor) -> Tensor:
        """Queries or keys [..., H, N, D] as they are multiplied."""
        return self.rule.turned(self.block, x, self.where)

    def biased(self, scores: Tensor) -> Tensor:
        """Scores [..., H, N, N] with their bias."""
        bias = self.rule.bias(self.block, self.where)
        return scores if bias is None else scores + bias

    def of_metric(self, keys: Tensor) -> Tensor:
        """The keys [..., H, N, D] whose mean over heads tokens are compared by."""
        return self.turned(keys) if self.rule.rotated_metric else keys


class Still:
    """Of a network whose attention knows no places."""

    rotated_metric = False

    def at(self, block: int, where: Positions | None) -> Bound:
        """The same for one block, and tokens in these places."""
        return Bound(self, block, where)

    def initial(self, like: Tensor) -> Positions | None:
        """Where the tokens lie before the first block, of one image."""
        return None

    def turned(self, block: int, x: Tensor, where: Positions | None) -> Tensor:
        """Queries or keys [..., H, N, D] as a block's attention multiplies them."""
        return x

    def bias(self, block: int, where: Positions | None) -> Tensor | None:
        """[..., H, N, N] to be added to a block's scores, or nothing."""
        return None


class Rotary(Still):
    """Queries and keys are turned by angles that depend on the place."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self.rope = model.rope
        self.grid = tuple(model.patch_embed.grid_size)
        self.protected = int(model.num_prefix_tokens)
        self.half = bool(model.blocks[0].attn.rotate_half)
        self.summed = plan.merged_position != positions.DESTINATION
        self.rotated_metric = plan.metric_position == positions.ROTATED

    def initial(self, like: Tensor) -> Positions:
        """Where the tokens lie before the first block."""
        return steps.initial(self.grid, self.protected, self.summed, like)

    def turned(self, block: int, x: Tensor, where: Positions | None) -> Tensor:
        """Those of protected rows stay as they are."""
        if where is None:
            raise ValueError("rotary positions need places")
        sin, cos = self.table(block, where.rows)
        turned: Tensor = apply_rot_embed(x, sin.to(x), cos.to(x), half=self.half)
        return turned

    def table(self, block: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sines and cosines [..., H or 1, N, D] of places [..., N, 1 or 3]."""
        whole = self.rope.get_embed()
        whole = whole[block] if whole.dim() == 4 else whole[None]  # [H or 1, patches, 2 D]
        patches = self.grid[0] * self.grid[1]
        number = rows[..., 0]
        if self.summed:
            one = rows[..., 2] == 1
            number = torch.where(one, rows[..., 0] * self.grid[1] + rows[..., 1], patches)
        sin, cos = whole.chunk(2, -1)
        still = torch.zeros_like(sin[:, :1]), torch.ones_like(cos[:, :1])
        found = []
        for values, rest in zip((sin, cos), still, strict=True):
            table = torch.cat([values, rest], 1)  # [H or 1, patches + 1, D]
            found.append(table[:, number.long()].movedim(0, -3))  # [..., H or 1, N, D]
        if not self.summed or bool((rows[..., 2] <= 1).all()):
            return found[0], found[1]
        mean = rows[..., :2] / rows[..., 2:].clamp(min=1)
        angles = layout(angle(self.rope, block, mean[..., 0], mean[..., 1]), self.half)
        several = (rows[..., 2] > 1)[..., None, :, None]
        return torch.where(several, angles.sin(), found[0]), torch.where(
            several, angles.cos(), found[1]
        )


class Relative(Still):
    """Scores have a bias for each difference of places."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self.model = model
        self.grid = tuple(model.patch_embed.grid_size)

    def initial(self, like: Tensor) -> Positions:
        """Where the tokens lie before the first block."""
        return steps.initial(self.grid, 1, False, like)

    def bias(self, block: int, where: Positions | None) -> Tensor | None:
        """Of a destination's row as query and its column as key."""
        if where is None:
            raise ValueError("relative positions need places")
        attn, shared = self.model.blocks[block].attn, self.model.rel_pos_bias
        whole = None if attn.relative_position_bias_table is None else attn._get_rel_pos_bias()[0]
        if shared is not None:
            whole = shared() if whole is None else whole + shared()
        if whole is None:
            return None
        patches = self.grid[0] * self.grid[1]
        number = where.rows[..., 0].long()
        number = torch.where(number == patches, 0, number + 1)  # the class token is timm's first
        rows = whole[:, number[..., :, None], number[..., None, :]]  # [H, ..., N, N]
        found: Tensor = rows.movedim(0, -3)
        return found


def of(model: Any, plan: Plan) -> Still:
    """What places do in a model of timm's under a plan."""
    if getattr(model, "rope", None) is not None:
        return Rotary(model, plan)
    attn = model.blocks[0].attn if hasattr(model, "rel_pos_bias") else None
    if attn is not None and (
        model.rel_pos_bias is not None or attn.relative_position_bias_table is not None
    ):
        return Relative(model, plan)
    return Still()


STILL = Bound(Still(), 0, None)


def angle(rope: Any, block: int, y: Tensor, x: Tensor) -> Tensor:
    """Angles [..., H or 1, N, D / 2] of places [..., N], as timm computes its table's."""
    kind = type(rope)
    if kind is RotaryEmbeddingMixed:
        first, second = (y, x) if rope.grid_indexing == "ij" else (x, y)
        freqs = rope.freqs[:, block].to(y.dtype)  # [2, H, D / 2]
        turns = (first, freqs[0]), (second, freqs[1])
        both: list[Tensor] = [at[..., None, :, None] * freq[:, None, :] for at, freq in turns]
        return both[0] + both[1]
    sides = rope.feat_shape
    coordinates = []
    for axis, place in enumerate((y, x)):
        if kind is RotaryEmbeddingDinoV3:
            length = {"max": max(sides), "min": min(sides)}.get(rope.normalize_coords, sides[axis])
            coordinates.append(2 * ((place + 0.5 + rope.grid_offset) / length) - 1)
        else:
            at = place + rope.grid_offset
            if rope.ref_feat_shape is not None:
                at = at / sides[axis] * rope.ref_feat_shape[axis]
            coordinates.append(at)
    if rope.grid_indexing == "xy":
        coordinates.reverse()
    grid = torch.stack(coordinates, -1)[..., None]  # [..., N, 2, 1]
    if kind is RotaryEmbeddingDinoV3:
        angles = 2 * math.pi * grid / rope.periods.to(y.dtype)
    else:
        angles = grid * rope.bands.to(y.dtype)
    found: Tensor = angles.flatten(-2)[..., None, :, :]
    return found


def layout(angles: Tensor, half: bool) -> Tensor:
    """[..., D / 2] → [..., D], each of two channels that turn together."""
    return torch.cat([angles, angles], -1) if half else angles.repeat_interleave(2, -1)

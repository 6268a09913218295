"""A Swin Transformer under a plan in PyTorch, one image, on timm's own submodules.

Between attention and MLP of a block with steps, tokens stand window after window, as rolled;
wherever no step asks for that they stand as in the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor

from ltmp_export.backbones.trace import Trace
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.steps.tokens import Choice, Decision, Tokens, restore, take


def run(
    model: Any, plan: Plan, image: Tensor, forced: Sequence[Sequence[Choice]] | None = None
) -> Trace:
    """Classify one normalised image.

    Args:
        model: timm's model, in eval mode.
        plan: The steps of each block.
        image: [channels, height, width], of the model's precision.
        forced: For each block and step, what to take instead of the own decision; blocks beyond
            its end decide freely.
    """
    choices: list[Sequence[Choice | None]] = list(forced or ())
    choices += [[None] * len(steps) for steps in plan.blocks[len(choices) :]]
    asked = iter(zip(plan.blocks, choices, strict=True))
    x = embedded = model.patch_embed(image[None])[0]  # [rows, columns, C]
    state: Mapping[str, Tensor] = {}
    tokens, counts, decisions = [], [], []
    for stage in model.layers:
        x = stage.downsample(x[None])[0]
        for block in stage.blocks:
            steps, chosen = next(asked)
            x, state, count, decided = _block(block, steps, chosen, x, state, plan.parameters)
            tokens.append(x.flatten(0, 1))
            counts.append(count)
            decisions.append(decided)
    logits: Tensor = model.head(model.norm(x[None]))[0]
    sizes = tuple(rows.new_ones(len(rows)) for rows in tokens)
    return Trace(
        logits, embedded.flatten(0, 1), tuple(tokens), sizes, tuple(counts), tuple(decisions)
    )


def _block(
    block: Any,
    steps: Sequence[Step],
    choices: Sequence[Choice | None],
    x: Tensor,
    handed: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> tuple[Tensor, Mapping[str, Tensor], int, tuple[Decision, ...]]:
    """Tokens [rows, columns, C] behind a block; what is handed on, rows of its MLP, decisions."""
    mixed = attention(block, x)
    if not steps:
        x = x + block.attn.proj(joined(block, mixed))
        x = x + block.mlp(block.norm2(x))
        return x, handed, x[..., 0].numel(), ()
    given = (windows(block, x) + block.attn.proj(mixed)).flatten(0, 1)
    tokens = before = Tokens(given, given.new_ones(len(given)), {}, 0, handed=handed)
    decisions = []
    for step, choice in zip(steps, choices, strict=True):
        tokens, decision = take(step, tokens, choice, weights)
        if decision is not None:
            decisions.append(decision)
    left = replace(tokens, x=tokens.x + block.mlp(block.norm2(tokens.x)))
    count = len(left.x)
    for step in steps:
        left = restore(step, before, tokens, left, weights)
    x = joined(block, left.x.reshape(mixed.shape))
    return x, left.handed, count, tuple(decisions)


def attention(block: Any, x: Tensor) -> Tensor:
    """What windows mix of their tokens, before the projection.

    Args:
        block: timm's block.
        x: [rows, columns, C] tokens.

    Returns:
        [windows, N, C].
    """
    attn = block.attn
    qkv = windows(block, attn.qkv(block.norm1(x)))  # [windows, N, 3 · C]
    apart = qkv.reshape(*qkv.shape[:2], 3, attn.num_heads, -1)
    q, k, v = apart.permute(2, 0, 3, 1, 4)  # [windows, H, N, D] each
    scores = q * attn.scale @ k.mT + attn._get_rel_pos_bias()
    if block.attn_mask is not None:
        scores = scores + block.attn_mask[:, None]
    mixed: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return mixed


def windows(block: Any, x: Tensor) -> Tensor:
    """[rows, columns, C] → [windows, N, C], rolled as the block is shifted."""
    rolled = torch.roll(x, [-shift for shift in block.shift_size], dims=(0, 1))
    cut: Tensor = window_partition(rolled[None], block.window_size).flatten(1, 2)
    return cut


def joined(block: Any, x: Tensor) -> Tensor:
    """The inverse."""
    cut = x.reshape(len(x), *block.window_size, -1)
    rolled = window_reverse(cut, block.window_size, *block.input_resolution)[0]
    return torch.roll(rolled, list(block.shift_size), dims=(0, 1))

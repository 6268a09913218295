"""The loss term of the multiply-accumulates (METHOD §1; arXiv 2307.10780, equations 8 and 9).

And of time in their place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ltmp_export.plan import mlps
from ltmp_export.plan.times import Load, TimeModel
from ltmp_export.plan.vit import Vit


def mac_ratio(vit: Vit, kept: Tensor) -> Tensor:
    """The share of the blocks' multiply-accumulates that is left, as a differentiable scalar.

    The paper's formula is that of an MLP four times as wide as the tokens and of heads that share
    the width; here are their true widths. Patch embedding and classifier do not count.

    Args:
        vit: Geometry.
        kept: [depth] mean of the mask after each block, over images and rows.
    """
    tokens, inner = vit.tokens, vit.heads * vit.head_width
    before = kept.new_ones(len(kept)) * tokens
    before[1:] = kept[:-1] * tokens
    after = kept * tokens
    linear, product = 4 * vit.width * inner, 2 * inner
    mlp = sum(one.ins * one.outs for one in mlps.layers(vit.mlp, vit.width, vit.mlp_width))
    if vit.parallel:  # whose MLP runs on what attention runs on
        linear, mlp = linear + mlp, 0
    spent = linear * before + product * before**2 + mlp * after  # [depth]
    return spent.mean() / (linear * tokens + product * tokens**2 + mlp * tokens)


def time_share(vit: Vit, time: TimeModel, kept: Tensor) -> Tensor:
    """The share of the dense model's time that is left, as a differentiable scalar.

    Args:
        vit: Geometry.
        time: What was measured.
        kept: As for `mac_ratio`; of padding to the longest image of a batch they do not tell.
    """
    after = kept * vit.tokens
    before = torch.cat([after.new_full((1,), vit.tokens), after[:-1]])
    blocks = zip(before, after, strict=True)
    share: Tensor = time.share([Load(given, given**2, left) for given, left in blocks])
    return share

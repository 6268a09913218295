"""timm's models of `ParallelThingsBlock` with one attention and one MLP in a block instead.

How the weights of those become the weights of this: `libraries/parallel_things.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import Mlp
from timm.models.vision_transformer import Attention, Block, ParallelThingsBlock
from torch import nn

BLOCK = "block_fn"
_NO_SCALE = {"init_values": 0.0}  # timm leaves out what is None


def arguments(model: Any) -> dict[str, Any]:
    """What a model of timm's is to be built with, too, to be a plain one; nothing if it is one.

    Nothing, either, where blocks have more than attentions and plain MLPs: `describe` refuses them.
    """
    blocks = getattr(model, "blocks", ())
    if not blocks or not all(
        type(block) is ParallelThingsBlock and _plain(block) for block in blocks
    ):
        return {}
    first = blocks[0]
    number, attn, mlp = len(first.attns), first.attns[0].attn, first.ffns[0].mlp
    return {
        BLOCK: partial(block, heads=number * attn.num_heads, inner=number * attn.proj.in_features),
        "mlp_ratio": (number * mlp.fc1.out_features + 0.5) / model.embed_dim,
        "qkv_bias": True,
        "proj_bias": True,
    } | _NO_SCALE


def again(arguments: dict[str, Any], heads: int) -> dict[str, Any]:
    """Those arguments among others, for so many heads of a block."""
    if BLOCK not in arguments:
        return arguments
    return {**arguments, BLOCK: partial(arguments[BLOCK], heads=heads), **_NO_SCALE}


def block(dim: int, num_heads: int, *, heads: int, inner: int, **rest: Any) -> Block:
    """A plain block whose attention may be wider than its tokens.

    Args:
        dim: Channels of a token.
        num_heads: What the model says; not used.
        heads: H.
        inner: Channels of all heads together.
        **rest: Further arguments of `Block`.
    """
    made = Block(dim, 1, **rest)
    biases = {key: rest[key] for key in ("qkv_bias", "proj_bias")}
    made.attn = Attention(dim, heads, attn_head_dim=inner // heads, **biases)
    return made


def _plain(block: ParallelThingsBlock) -> bool:
    attentions = [one.attn for one in block.attns]
    mlps = [one.mlp for one in block.ffns]
    bare = all(
        type(getattr(attn, name)) is nn.Identity
        for attn in attentions
        for name in ("q_norm", "k_norm", "norm")
    )
    bare = bare and all(type(mlp) is Mlp and type(mlp.norm) is nn.Identity for mlp in mlps)
    return bare and all(type(a) is Attention and a.gate is None for a in attentions)

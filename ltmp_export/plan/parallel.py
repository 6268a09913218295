"""Blocks whose attention and MLP run side by side, on the same normed tokens (arXiv 2302.05442).

One layer `in_proj` makes of a token what the MLP activates, and behind it queries, keys and values;
then the two are projected each for itself, or by one layer that is given both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ltmp_export.plan import mlps

if TYPE_CHECKING:
    from ltmp_export.plan.vit import Vit

APART = "apart"  # attn_out_proj of what attention mixed, mlp_out_proj of what the MLP activated
JOINED = "joined"  # out_proj of both, what attention mixed in front
KINDS = ("", APART, JOINED)  # the first: blocks that have the MLP behind attention


class Layer(NamedTuple):
    """A linear layer: leaf of its path, inputs and outputs."""

    leaf: str
    ins: int
    outs: int


def layers(kind: str, width: int, inner: int) -> tuple[Layer, ...]:
    """The linear layers of such a block in the order of the computation.

    Args:
        kind: `APART` or `JOINED`.
        width: Channels of a token, and of all heads.
        inner: Channels that the MLP activates.
    """
    first = Layer("in_proj", width, inner + 3 * width)
    if kind == JOINED:
        return first, Layer("out_proj", width + inner, width)
    return first, Layer("attn_out_proj", width, width), Layer("mlp_out_proj", inner, width)


def require_sound(vit: Vit) -> None:
    """Check that the kind of a ViT's blocks is one, and that such blocks have no other parts.

    Raises:
        ValueError: It is not.
    """
    usual = vit.mlp == mlps.PLAIN and vit.width == vit.heads * vit.head_width and not vit.post_norm
    if vit.parallel not in KINDS or (vit.parallel and not usual):
        raise ValueError(f"parallel blocks {vit.parallel!r:.50} with other parts")


def attention(path: str, kind: str) -> str:
    """The path of what attends in a block: of such a one that of the block itself."""
    return path if kind else f"{path}.attn"

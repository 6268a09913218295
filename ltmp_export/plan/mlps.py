"""The MLPs that transformer blocks have, and the linear layers of each, by timm's names.

All but the plain one are gated (GLU): the activation of one half is multiplied with the other, and
`fc2`, or `w2`, takes the product.
"""

from __future__ import annotations

from typing import NamedTuple

PLAIN = "plain"  # fc1, activation, norm, fc2
PACKED = "packed"  # gate and value in one fc1, the gate in front (SwiGLUPacked)
PACKED_LAST = "packed_last"  # the gate behind the value (GluMlp)
SPLIT = "split"  # fc1_g is the gate, fc1_x the value (SwiGLU)
NORMED = "normed"  # a norm, w0 is the gate, w1 the value, w2 (ViTamin's GeGluMlp)
KINDS = (PLAIN, PACKED, PACKED_LAST, SPLIT, NORMED)


class Layer(NamedTuple):
    """A linear layer of an MLP.

    Attributes:
        leaf: Of its path.
        ins: Inputs.
        outs: Outputs.
        alone: Whether no other layer is given what it is given by the norm before the MLP.
    """

    leaf: str
    ins: int
    outs: int
    alone: bool = False


def layers(kind: str, width: int, inner: int) -> tuple[Layer, ...]:
    """The linear layers of an MLP in the order of the computation.

    Args:
        kind: One of `KINDS`.
        width: Channels of a token.
        inner: Channels that the last layer is given.
    """
    if kind in (SPLIT, NORMED):
        gate, value, last = ("fc1_g", "fc1_x", "fc2") if kind == SPLIT else ("w0", "w1", "w2")
        return Layer(gate, width, inner), Layer(value, width, inner), Layer(last, inner, width)
    halves = 1 if kind == PLAIN else 2
    return Layer("fc1", width, halves * inner, alone=True), Layer("fc2", inner, width)

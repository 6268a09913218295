"""From images to the tokens that enter the first block, in ONNX."""

from __future__ import annotations

from onnx import TensorProto

from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout, fixed_layout, make_layout
from ltmp_export.graph.single import layout_of
from ltmp_export.plan import pairing

FLOAT = int(TensorProto.FLOAT)


def one(g: GraphBuilder, images: Name, single: bool) -> Name:
    """The number 1, computed from the images, see `Layers.one`."""
    if not single:
        batch = g.op("Squeeze", g.op("Shape", images, start=0, end=1), g.ints(0))
        return g.op("Cast", g.op("Min", g.op("Max", batch, g.index(1)), g.index(1)), to=FLOAT)
    pixel = g.op("Gather", g.reshape(images, -1), g.index(0), axis=0)
    return g.op("Pow", pixel, g.number(0.0))  # also of a NaN


def zeros(g: GraphBuilder, patches: Name) -> Name:
    """[B, 1]: 0, or NaN for an image with a number that is NaN or infinite.

    Such a number would end in a layer that rounds to integers, and a class come out.
    """
    zero = g.op("Mul", g.reduce("ReduceSum", patches, [1, 2]), g.number(0.0))
    return g.op("Unsqueeze", zero, g.ints(1))


def embed(
    layers: VitLayers, images: Name, patches: Name, *, single: bool, static: bool
) -> tuple[Name, Layout]:
    """Patches with their positions, behind the class token and its like; and where they are.

    Args:
        layers: The model's.
        images: [B, channels, height, width].
        patches: [B, patches, C] of these.
        single: Whether B is 1.
        static: Whether every image has the same slots in every block.

    Returns:
        Packed rows [B * N, C] of N tokens for each image; [B, N, C] if static.
    """
    g, vit, x = layers.g, layers.vit, patches
    tokens = vit.tokens
    names = ("cls_token", "dist_token")[: vit.leading] + ("reg_token",) * bool(vit.registers)
    prefix = [g.weight(name) for name in names]
    numbers = None
    if not single:
        batch = g.op("Shape", images, start=0, end=1)  # [1]
        shape = g.op("Concat", batch, g.ints(1, vit.width), axis=0)
        prefix = [g.op("Expand", token, shape) for token in prefix]  # [B, 1, C]; [B, R, C]
        ones = g.op("Expand", g.index(1), g.op("Concat", batch, g.ints(1), axis=0))
        numbers = g.op("CumSum", ones, g.index(0), exclusive=1)  # of a Range TVM knows no length
    layout = fixed_layout(g, tokens, numbers, protected=vit.prefix)
    least = pairing.least(vit.prefix)
    if numbers is not None and not static and tokens < least:
        layout = make_layout(g, layout.count, least, numbers, vit.prefix)
    position = g.weight("pos_embed") if "pos_embed" in g.weights else None
    covers_prefix = position is not None and g.weights["pos_embed"].shape[1] == tokens
    if position is not None and not covers_prefix:
        x = g.op("Add", x, position)
    if prefix:
        x = g.op("Concat", *prefix, x, axis=1)
    if position is not None and covers_prefix:
        x = g.op("Add", x, position)
    if not static:
        x = g.reshape(x, -1, vit.width, name="tokens")  # [B * N, C]
        if single:
            layout = layout_of(g, x, tokens, vit.prefix)
        return layers.norm("norm_pre", x), layout
    return layers.norm("norm_pre", g.op("Identity", x, name="tokens")), layout

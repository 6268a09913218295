"""Attention among the tokens of each window, in ONNX.

Nothing is rolled or cut: every token is looked up where it stands, by tables of places that the
graph holds, a table for all blocks that cut alike. Shapes: B images, L tokens of an image, S
windows of N tokens, C channels, H heads of D channels.
"""

from __future__ import annotations

import numpy as np

from ltmp_export.backbones.swin import windows
from ltmp_export.backbones.swin.geometry import Block
from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.graph.builder import Name

_APART = -100.0  # in timm, to a score of tokens that do not attend to each other


def attend(layers: Layers, block: Block, rows: Name) -> Name:
    """What windows mix of their tokens, [B, S, H, N, D].

    Args:
        layers: The model's.
        block: The block.
        rows: [B · L, C] normalised tokens, as they stand in the image.
    """
    g, path, width = layers.g, block.path, block.width // block.heads
    qkv = layers.linear(f"{path}.attn.qkv", rows)
    with layers.half(f"{path}.attn.qkv"):
        pieces = g.reshape(qkv, -1, block.tokens * 3 * block.heads, width)
        q, k, v = (
            g.op("Gather", pieces, _heads(layers, block, part), axis=1, name=name)
            for part, name in enumerate("qkv")
        )  # [B, S, H, N, D] each
    with layers.half(f"{path}.attn.scores"):
        q = g.op("Mul", g.cast(q), g.number(width**-0.5))
        scores = g.op("MatMul", q, g.op("Transpose", g.cast(k), perm=[0, 1, 2, 4, 3]))
    scores = g.op("Add", layers.exact(scores), _bias(layers, block))
    shares = g.op("Softmax", scores, axis=-1)
    with layers.half(f"{path}.attn.mixed"):
        return g.op("MatMul", g.cast(shares), g.cast(v))


def project(layers: Layers, block: Block, mixed: Name, *, together: bool) -> Name:
    """The output [B, L, C] of attention, without the residual.

    Args:
        layers: The model's.
        block: The block.
        mixed: What `attend` gives.
        together: Whether tokens come as they stand in the image, else window after window.
    """
    g, heads = layers.g, block.heads
    with layers.half(f"{block.path}.attn.mixed"):
        pieces = g.reshape(mixed, -1, block.tokens * heads, block.width // heads)
        places = windows.back(block) if together else range(block.tokens)
        columns = [
            [(place // block.area * heads + head) * block.area + place % block.area
             for head in range(heads)]
            for place in places
        ]  # fmt: skip
        word = "joined" if together else "windows"
        gathered = g.op("Gather", pieces, _table(layers, block, word, columns), axis=1)
        rows = g.reshape(gathered, -1, block.width)  # [B · L, C]
    out = layers.exact(layers.linear(f"{block.path}.attn.proj", rows))
    return g.reshape(out, -1, block.tokens, block.width)


def cut(layers: Layers, block: Block, x: Name) -> Name:
    """[B, L, C] as they stand in the image → window after window."""
    table = _table(layers, block, "cut", windows.order(block))
    return layers.g.op("Gather", x, table, axis=1)


def together(layers: Layers, block: Block, x: Name, name: str) -> Name:
    """The inverse."""
    table = _table(layers, block, "back", windows.back(block))
    return layers.g.op("Gather", x, table, axis=1, name=name)


def _heads(layers: Layers, block: Block, part: int) -> Name:
    """[S, H, N] places of queries, keys or values among the pieces of an image's tokens."""
    places = np.reshape(windows.order(block), (block.sets, 1, block.area)) * 3 * block.heads
    columns = np.arange(block.heads)[:, None] + part * block.heads
    return _table(layers, block, "qkv"[part], places + columns)


def _table(layers: Layers, block: Block, word: str, places: object) -> Name:
    """A stored table of places."""
    cuts = "_".join("x".join(map(str, pair)) for pair in (block.grid, block.window, block.shift))
    name = f"const/{word}[{cuts},{block.heads}]"
    return layers.g.stored(name, np.asarray(places, np.int64))


def _bias(layers: Layers, block: Block) -> Name:
    """[(S,) H, N, N] what is added to scores."""
    g, area = layers.g, block.area
    relations = g.stored(
        f"const/relations[{'x'.join(map(str, block.window))}]",
        np.asarray(windows.relations(block), np.int64),
    )
    table = g.weight(f"{block.path}.attn.relative_position_bias_table")
    biases = g.op("Gather", table, relations, axis=0)  # [N · N, H]
    bias = g.reshape(g.op("Transpose", biases, perm=[1, 0]), block.heads, area, area)
    if not any(block.shift):
        return bias
    regions = np.reshape(windows.regions(block), (block.sets, area))
    own = _table(layers, block, "regions", regions)
    there, here = (g.op("Unsqueeze", own, g.ints(*axes)) for axes in ((1, 3), (1, 2)))
    alike = g.op("Equal", there, here)  # [S, 1, N, N]
    return g.op("Add", bias, g.op("Where", alike, g.number(0.0), g.number(_APART)))

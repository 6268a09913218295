"""Queries and keys turned by angles that depend on where a token lies, in ONNX.

Unmerged tokens take sines and cosines from tables, which are timm's; those of merged tokens are
computed. Half as many angles as channels; protected rows are turned by none. The tables and what
angles follow from are stored beside the weights, by `describe.arrays`:

    rope.sin, rope.cos  [1, patches + 1, D / 2], the last row that of no turn
    rope.angles         [1, 3, D / 2 and more]: for each row, for each column, and what is added

of a block with turns of its own `blocks.N.rope.*`, with H in the place of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout


@dataclass(frozen=True)
class Turns:
    """Sines and cosines of the tokens of a block, the sines with signs.

    [B or 1, H or 1, N, D]; [H or 1, N, D] in a graph of single images, likewise queries and keys.
    """

    g: GraphBuilder
    sin: Name
    cos: Name
    partner: Name
    heads_axis: int

    def turned(self, x: Name) -> Name:
        """Queries or keys [B, H, N, D] in float32."""
        g = self.g
        other = g.op("Gather", x, self.partner, axis=self.heads_axis + 2)
        return g.op("Add", g.op("Mul", x, self.cos), g.op("Mul", other, self.sin))


def write(
    g: GraphBuilder, net: Positioned, block: int, layout: Layout, places: Positions | None
) -> Turns:
    """Those of a block.

    Args:
        g: Where to.
        net: Geometry.
        block: Its index.
        layout: Where the tokens of an image are.
        places: Where they lie; None while each lies where it began.
    """
    path = f"blocks.{block}.rope" if net.own_turns else "rope"
    if places is None:
        order = [*(net.prefix * [net.patches]), *range(net.patches)]
        sin, cos = (
            g.op("Unsqueeze", g.op("Gather", g.weight(f"{path}.{leaf}"), g.ints(*order), axis=1),
                 g.ints(0))
            for leaf in ("sin", "cos")
        )  # fmt: skip
    else:
        sin, cos = _moved(g, net, path, layout, places)
    width = net.head_width
    pairs, partner, signs = _channels(width, net.half)
    signed = g.op("Gather", sin, pairs_of(g, pairs), axis=3)
    signed = g.op("Mul", signed, g.stored(f"const/signs[{width},{net.half}]", signs))
    spread = g.op("Gather", cos, pairs_of(g, pairs), axis=3)
    signed, spread = layout.heads_alone(signed), layout.heads_alone(spread)
    return Turns(g, signed, spread, g.ints(*partner), layout.heads_axis)


def pairs_of(g: GraphBuilder, pairs: list[int]) -> Name:
    """For each channel which angle turns it."""
    return g.ints(*pairs)


def _channels(width: int, half: bool) -> tuple[list[int], list[int], np.ndarray]:
    """For each channel its angle, the one that turns with it, and the sign of that one's part."""
    channels = range(width)
    if half:
        middle = width // 2
        pairs = [channel % middle for channel in channels]
        partner = [(channel + middle) % width for channel in channels]
        signs = [-1.0 if channel < middle else 1.0 for channel in channels]
    else:
        pairs = [channel // 2 for channel in channels]
        partner = [channel ^ 1 for channel in channels]
        signs = [1.0 if channel % 2 else -1.0 for channel in channels]
    return pairs, partner, np.array(signs, np.float32)


def _moved(
    g: GraphBuilder, net: Positioned, path: str, layout: Layout, places: Positions
) -> tuple[Name, Name]:
    """Sines and cosines [B, H or 1, N, D / 2] of tokens that steps have moved."""
    rows = places.rows
    if layout.fixed is None:
        rows = g.op("Gather", rows, layout.rows, axis=0)  # [B, N, 1 or 3]
    if not places.summed:
        number = g.op("Cast", g.op("Squeeze", rows, g.ints(2)), to=TensorProto.INT64)
        return _table(g, path, "sin", number), _table(g, path, "cos", number)
    y, x, count = (g.op("Gather", rows, g.index(column), axis=2) for column in range(3))  # [B, N]
    place = g.op("Add", g.op("Mul", y, g.number(float(net.grid[1]))), x)
    alone = g.op("Equal", count, g.number(1.0))
    number = g.op("Where", alone, place, g.number(float(net.patches)))
    number = g.op("Cast", number, to=TensorProto.INT64)
    several = g.op("Unsqueeze", g.op("Greater", count, g.number(1.0)), g.ints(1, 3))
    angles = _angles(g, path, y, x, count)  # [B, H or 1, N, some more than D / 2]
    found = []
    for leaf, kind in (("sin", "Sin"), ("cos", "Cos")):
        # onnxruntime's sine of what is left of a multiple of its width may be another one
        computed = g.slice(g.op(kind, angles), 3, 0, net.head_width // 2)
        found.append(g.op("Where", several, computed, _table(g, path, leaf, number)))
    return found[0], found[1]


def _table(g: GraphBuilder, path: str, leaf: str, number: Name) -> Name:
    """Rows [B, H or 1, N, D / 2] of a table for places [B, N]."""
    rows = g.op("Gather", g.weight(f"{path}.{leaf}"), number, axis=1)  # [H or 1, B, N, D / 2]
    return g.op("Transpose", rows, perm=[1, 0, 2, 3])


def _angles(g: GraphBuilder, path: str, y: Name, x: Name, count: Name) -> Name:
    """Angles [B, H or 1, N, a multiple of 16] of the means of places, whose sums are given [B, N].

    By sums and products of each number for itself, so that an image's do not depend on its batch.
    """
    weights = g.weight(f"{path}.angles")
    of_row, of_column, start = (g.slice(weights, 1, at, at + 1) for at in range(3))
    number = g.op("Max", count, g.number(1.0))
    mean = [g.op("Unsqueeze", g.op("Div", part, number), g.ints(1, 3)) for part in (y, x)]
    turned = g.op("Add", g.op("Mul", mean[0], of_row), g.op("Mul", mean[1], of_column))
    return g.op("Add", turned, start)

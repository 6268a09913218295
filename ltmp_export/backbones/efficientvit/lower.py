"""EfficientViT of MIT under a plan in ONNX, see `hybrid.lower`."""

from __future__ import annotations

from functools import partial

from ltmp_export.backbones import writing
from ltmp_export.backbones.efficientvit.geometry import Cells
from ltmp_export.backbones.hybrid.convolutions import Conv
from ltmp_export.backbones.hybrid.lower import Lowering, slots
from ltmp_export.backbones.hybrid.unit import Passage
from ltmp_export.graph.builder import Name
from ltmp_export.plan.geometry import Size

_CELL = 1, 1


class _Lowering(Lowering):
    """Adds linear attention among the cells of a map."""

    def unit(self, passage: Passage, x: Name) -> Name:
        """An EfficientViT block on a map."""
        g, unit, block = self.g, passage.piece, passage.first or 0
        if not self.counts:
            self.embedded(self.unfold(x, unit.width, _CELL, passage.grid))
            g.keep("embed/tokens")
        with g.scope(f"block_{block:02d}"):
            with g.scope("attn"):
                x = g.op("Add", self.layers.exact(x), self.attention(unit, x, passage.grid))
            number = passage.grid[0] * passage.grid[1]
            if self.plan.blocks[block]:
                rows = self.unfold(x, unit.width, _CELL, passage.grid)
                left = self.reduced(block, slots(rows, number))
                x = self.fold(left.x, unit.width, _CELL, passage.merged)
            else:
                self.reduced(block, slots(x, number))
            with g.scope("local"):
                x = self.chain(unit.local, x)
            rows = self.unfold(x, unit.width, _CELL, passage.merged)
            g.keep(g.op("Identity", rows, name="tokens"))
        return x

    def attention(self, unit: Cells, x: Name, grid: Size) -> Name:
        """What linear attention adds to a map, all scales together."""
        g, width, cells = self.g, unit.head_width, grid[0] * grid[1]
        with g.scope("qkv"):
            qkv = self.alone(unit.qkv, x, grid)
        scales = [qkv]
        for convs in unit.scales:
            other = qkv
            for conv in convs:
                other = self.conv(conv, other)
            scales.append(other)
        together = g.op("Concat", *scales, axis=1) if unit.scales else qkv
        heads = g.reshape(together, 0, unit.all_heads, 3 * width, cells)  # [B, H, 3 · D, N]
        q, k, v = (g.slice(heads, 2, n * width, (n + 1) * width) for n in range(3))
        q, k = g.op("Relu", q), g.op("Transpose", g.op("Relu", k), perm=[0, 1, 3, 2])
        v = g.op("Pad", v, g.ints(0, 0, 0, 0, 0, 0, 1, 0), g.number(1.0))  # [B, H, D + 1, N]
        mixed = g.op("MatMul", g.op("MatMul", v, k), q)
        total = g.op("Add", g.slice(mixed, 2, width), g.number(unit.eps))  # [B, H, 1, N]
        out = g.op("Div", g.slice(mixed, 2, 0, width), total)
        with g.scope("proj"):
            return self.alone(unit.proj, g.reshape(out, 0, unit.proj.ins, *grid), grid)

    def alone(self, conv: Conv, x: Name, grid: Size) -> Name:
        """A convolution of one cell, on a map: in int8 a linear layer on its cells."""
        g = self.g
        if conv.path not in self.precision.layers:
            return self.conv(conv, x)
        rows = g.reshape(self.unfold(x, conv.ins, _CELL, grid), -1, conv.ins)
        rows = self.layers.linear(conv.path, rows)
        cells = g.reshape(rows, -1, grid[0] * grid[1], conv.outs)
        return self.behind(conv, self.fold(cells, conv.outs, _CELL, grid))

    def head(self, x: Name) -> Name:
        """Means [B, C] → logits [B, classes]."""
        g, layers = self.g, self.layers
        hidden = layers.norm("head.classifier.1", layers.linear("head.classifier.0", x))
        return layers.linear("head.classifier.4", g.activation(self.net.activation, hidden))


lower = partial(writing.lower, _Lowering)
half_places = partial(writing.half_places, _Lowering)

"""MobileViT under a plan in ONNX, see `hybrid.lower`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ltmp_export.backbones import writing
from ltmp_export.backbones.hybrid.lower import Lowering, slots
from ltmp_export.backbones.hybrid.unit import Passage
from ltmp_export.backbones.mobilevit.geometry import Patches
from ltmp_export.graph.builder import Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.steps import lowering


class _Lowering(Lowering):
    """Adds transformers among the patches of a map."""

    def unit(self, passage: Passage, x: Name) -> Name:
        """A MobileViT block on a map."""
        g, unit, first = self.g, passage.piece, passage.first or 0
        grid, patch, given = passage.grid, unit.patch, x
        with g.scope(f"unit_{first:02d}"):
            for conv in unit.local:
                x = self.conv(conv, x)
            rows = self.unfold(x, unit.width, patch, grid)
        tokens = slots(self.embedded(rows), unit.sets * grid[0] * grid[1])
        for number in range(unit.blocks):
            with g.scope(f"block_{first + number:02d}"):
                tokens = self.block(unit, number, first + number, tokens)
                steps = self.plan.blocks[first + number]
                if steps:
                    beside = self.unfold(given, unit.ins, patch, grid)
                    for step in steps:
                        beside = lowering.along(g, step, tokens, beside, unit.ins)
                    given = self.fold(beside, unit.ins, patch, passage.merged)
        with g.scope(f"unit_{first:02d}"):
            x = self.layers.norm(f"{unit.path}.norm", tokens.x)
            if tokens.alive is not None:
                x = g.op("Where", g.op("Unsqueeze", tokens.alive, g.ints(2)), x, g.number(0.0))
            x = self.conv(unit.project, self.fold(x, unit.width, patch, passage.merged))
            return self.conv(unit.fusion, g.op("Concat", self.layers.exact(given), x, axis=1))

    def block(self, unit: Patches, number: int, block: int, tokens: Slots) -> Slots:
        """One transformer block: attention within each set, the plan's steps, MLP."""
        g, path = self.g, unit.block(number)
        with g.scope("attn"):
            update = self.attention(unit, path, tokens)
            x = g.op("Add", tokens.x, update)
        left = self.reduced(block, replace(tokens, x=x))
        with g.scope("mlp"):
            rows = self.layers.norm(f"{path}.norm2", left.x)
            update = self.layers.mlp(path, g.reshape(rows, -1, unit.width))
            update = g.reshape(update, -1, left.number, unit.width)
        x = g.op("Add", left.x, update, name="tokens")
        g.keep(x)
        return replace(left, x=x)

    def attention(self, unit: Patches, path: str, tokens: Slots) -> Name:
        """What attention adds to tokens [B, S · N, C]."""
        g, layers, heads = self.g, self.layers, unit.heads
        number, inner = tokens.number // unit.sets, unit.width // unit.heads
        rows = g.reshape(layers.norm(f"{path}.norm1", tokens.x), -1, unit.width)
        qkv = layers.linear(f"{path}.attn.qkv", rows)
        with layers.half(f"{path}.attn.qkv"):
            parts = g.reshape(qkv, -1, number, 3, heads, inner)
            parts = g.op("Transpose", parts, perm=[2, 0, 3, 1, 4])  # [3, B · S, H, N, D]
            q, k, v = (g.op("Gather", parts, g.index(part), axis=0) for part in range(3))
        with layers.half(f"{path}.attn.scores"):
            q = g.op("Mul", g.cast(q), g.number(inner**-0.5))
            scores = g.op("MatMul", q, g.op("Transpose", g.cast(k), perm=[0, 1, 3, 2]))
        scores = layers.exact(scores)
        if tokens.alive is not None:
            bias = g.op("Where", tokens.alive, g.number(0.0), g.number(LOWEST))
            scores = g.op("Add", scores, g.reshape(bias, -1, 1, 1, number))
        weights = g.op("Softmax", scores, axis=-1)
        with layers.half(f"{path}.attn.mixed"):
            mixed = g.op("MatMul", g.cast(weights), g.cast(v))
            mixed = g.reshape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), -1, unit.width)
        update = layers.exact(layers.linear(f"{path}.attn.proj", mixed))
        return g.reshape(update, -1, tokens.number, unit.width)

    def head(self, x: Name) -> Name:
        """Means [B, C] → logits [B, classes]."""
        return self.layers.linear("head.fc", x)


lower = partial(writing.lower, _Lowering)
half_places = partial(writing.half_places, _Lowering)

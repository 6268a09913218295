"""Networks of convolutions and attention as an export-friendly graph for any batch.

A map is [B, C, height, width] with height and width in the graph. Convolutions and the BatchNorms
behind them are written as they are, under the names of their checkpoint: runtimes join the two
themselves. In float16 files a convolution computes in float16, all else in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from ltmp_export.backbones import edges
from ltmp_export.backbones.edges import BATCH
from ltmp_export.backbones.hybrid.convolutions import Chain, Conv
from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.backbones.hybrid.unit import Passage
from ltmp_export.backbones.vit import embedding
from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision
from ltmp_export.steps import lowering


class Lowering:
    """Writes one graph; each network adds its units and its head."""

    def __init__(
        self, net: Hybrid, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        self.net = net
        self.plan = plan
        self.g = g
        self.precision = precision
        self.layers = Layers(g, net, precision)
        self.batch: int | str = 1 if single else BATCH
        self.images = ""
        self.broken: Name | None = None  # see `embedding.zeros`
        self.counts: list[Name] = []

    def model(
        self, outputs: Sequence[str], token_counts: bool, metadata: Mapping[str, str]
    ) -> ModelProto:
        """The graph."""
        g, net = self.g, self.net
        x = self.images = edges.images(g, net, self.precision, self.batch)
        if self.precision.layers:
            one = embedding.one(g, x, self.batch != BATCH)
            self.layers = replace(self.layers, one=one)
        for place, passage in enumerate(net.passages(self.plan)):
            with g.scope(f"piece_{place:02d}"):
                if passage.first is None:
                    x = self.chain(passage.piece, x)
            if passage.first is not None:
                x = self.unit(passage, x)
        with g.scope("head"):
            logits = self.layers.exact(self.head(g.reduce("ReduceMean", x, [2, 3])))
            if self.broken is not None:
                logits = g.op("Add", logits, self.broken)
        edges.logits(g, logits, net, self.precision, self.batch)
        if token_counts:
            edges.per_block(g, "token_counts", self.counts, net, self.batch)
        return g.build(f"{self.plan.family}_{net.name}", metadata)

    def unit(self, passage: Passage, x: Name) -> Name:
        """Transformer blocks on a map."""
        raise NotImplementedError

    def head(self, x: Name) -> Name:
        """Means [B, C] → logits [B, classes]."""
        raise NotImplementedError

    def chain(self, chain: Chain, x: Name) -> Name:
        """Convolutions on a map, and around them."""
        y = x
        for conv in chain.convs:
            y = self.conv(conv, y)
        return self.g.op("Add", self.layers.exact(x), y) if chain.shortcut else y

    def conv(self, conv: Conv, x: Name) -> Name:
        """A convolution on a map, and what stands behind it."""
        g, side, around = self.g, conv.kernel, conv.kernel // 2
        with self.layers.half(conv.path):
            inputs = [g.cast(x), self.kernel(f"{conv.path}.weight")]
            if f"{conv.path}.bias" in g.weights:
                inputs.append(g.weight(f"{conv.path}.bias"))
            y = g.op(
                "Conv", *inputs, kernel_shape=[side, side], strides=[conv.stride] * 2,
                pads=[around] * 4, group=conv.groups,
            )  # fmt: skip
        return self.behind(conv, self.layers.exact(y))

    def kernel(self, name: str) -> Name:
        """The weight of a convolution; of one cell also as a linear layer's, [out, in]."""
        g = self.g
        if np.ndim(g.weights[name]) == 4:
            return g.weight(name)
        return g.stored(name, np.asarray(g.weights[name])[:, :, None, None])

    def behind(self, conv: Conv, y: Name) -> Name:
        """Norm and activation behind a convolution."""
        g = self.g
        if conv.norm:
            parts = ("weight", "bias", "running_mean", "running_var")
            stored = (g.weight(f"{conv.norm}.{part}") for part in parts)
            y = g.op("BatchNormalization", y, *stored, epsilon=self.net.batch_eps)
        return g.activation(conv.act, y) if conv.act else y

    def unfold(self, x: Name, channels: int, patch: Size, grid: Size) -> Name:
        """A map → tokens [B, S · N, C], pixels of one place in their patch together."""
        g = self.g
        if patch == (1, 1):
            flat = g.reshape(x, 0, channels, grid[0] * grid[1])
            return g.op("Transpose", flat, perm=[0, 2, 1])
        parts = g.reshape(x, 0, channels, grid[0], patch[0], grid[1], patch[1])
        parts = g.op("Transpose", parts, perm=[0, 3, 5, 2, 4, 1])
        return g.reshape(parts, -1, patch[0] * patch[1] * grid[0] * grid[1], channels)

    def fold(self, x: Name, channels: int, patch: Size, grid: Size) -> Name:
        """The inverse."""
        g = self.g
        if patch == (1, 1):
            return g.reshape(g.op("Transpose", x, perm=[0, 2, 1]), 0, channels, *grid)
        parts = g.reshape(x, 0, *patch, *grid, channels)
        parts = g.op("Transpose", parts, perm=[0, 5, 3, 1, 4, 2])
        return g.reshape(parts, 0, channels, grid[0] * patch[0], grid[1] * patch[1])

    def embedded(self, tokens: Name) -> Name:
        """Tokens that enter a unit; those of the first under the name by which `check` looks."""
        if self.counts:
            return tokens
        with self.g.scope("embed"):
            tokens = self.g.op("Identity", tokens, name="tokens")
        if self.precision.layers:
            self.broken = embedding.zeros(self.g, tokens)
        return tokens

    def reduced(self, block: int, tokens: Slots) -> Slots:
        """Tokens behind the steps of a block, whose count gets its name."""
        g = self.g
        left = lowering.reduce(g, self.plan.blocks[block], tokens)
        count = g.ints(left.number)
        if self.batch == BATCH:
            count = g.op("Expand", count, g.op("Shape", self.images, start=0, end=1))
        count = g.op("Identity", count, name="count")
        g.keep(count)
        self.counts.append(count)
        return left


def slots(x: Name, number: int) -> Slots:
    """Tokens [B, number, C] that enter a unit."""
    return Slots(number=number, x=x, size=None, scores={}, metric=None, alive=None, protected=0)

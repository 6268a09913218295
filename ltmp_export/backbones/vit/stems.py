"""The convolutions in front of some ViTs' patch embedding, in ONNX, on maps [B, C, rows, columns].

In float16 files convolutions compute in float16, all else in float32. Standardised weights are
computed in the graph, from constants: runtimes do so once, as they load it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ltmp_export.graph.builder import Name
from ltmp_export.plan import stem as plans
from ltmp_export.plan.stem import PATH, Stem

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.layers import Layers


def write(layers: Layers, stem: Stem, images: Name) -> Name:
    """Images [B, channels, height, width] → the map that the patches are cut from."""
    if stem.kind == plans.PLAIN:
        return _Plain(layers, stem).map(images)
    if stem.kind == plans.MBCONV:
        return _MbConv(layers, stem).map(images)
    return _ResNet(layers, stem).map(images)


class _Writer:
    """Writes one stem."""

    def __init__(self, layers: Layers, stem: Stem) -> None:
        self.layers, self.stem, self.g = layers, stem, layers.g

    def conv(self, path: str, x: Name, weight: Name | None = None) -> Name:
        """A convolution, of another weight than its own if one is given."""
        g, own = self.g, self.stem.of(path)
        with self.layers.half(path):
            inputs = [g.cast(x), g.weight(f"{path}.weight") if weight is None else g.cast(weight)]
            if f"{path}.bias" in g.weights:
                inputs.append(g.weight(f"{path}.bias"))
            y = g.op(
                "Conv", *inputs, kernel_shape=[own.kernel] * 2, strides=[own.stride] * 2,
                pads=list(own.pads), group=own.groups,
            )  # fmt: skip
        return self.layers.exact(y)


class _Plain(_Writer):
    """Convolutions one after the other."""

    def map(self, x: Name) -> Name:
        g = self.g
        for own in self.stem.convs:
            x = self.conv(own.path, x)
            norm = f"{own.path.removesuffix('.conv')}.bn"
            if f"{norm}.weight" in g.weights:
                parts = ("weight", "bias", "running_mean", "running_var")
                stored = (g.weight(f"{norm}.{part}") for part in parts)
                x = g.op("BatchNormalization", x, *stored, epsilon=plans.NORM_EPS)
                x = g.activation(self.stem.activation, x)
        return x


class _MbConv(_Writer):
    """Two convolutions, stages of inverted bottlenecks, and a convolution to the tokens' width."""

    def map(self, x: Name) -> Name:
        x = self.normed(f"{PATH}.stem.norm1", self.conv(f"{PATH}.stem.conv1", x))
        x = self.conv(f"{PATH}.stem.conv2", self.g.activation(self.stem.activation, x))
        firsts = (conv.path for conv in self.stem.convs)
        for path in (one.removesuffix(plans.FIRST) for one in firsts if one.endswith(plans.FIRST)):
            x = self.block(path, x)
        return self.conv(f"{PATH}.pool.proj", self.normed(f"{PATH}.pool.norm", x))

    def block(self, path: str, x: Name) -> Name:
        y = self.normed(f"{path}.pre_norm", x)
        for leaf in (plans.FIRST, plans.MIDDLE):
            y = self.g.activation(self.stem.activation, self.conv(f"{path}{leaf}", y))
        return self.g.op("Add", self.conv(f"{path}{plans.LAST}", y), self.shortcut(path, x))

    def shortcut(self, path: str, x: Name) -> Name:
        """The map beside a block: where that halves it, means of the 3 × 3 cells that are there."""
        stride = self.stem.of(f"{path}{plans.MIDDLE}").stride
        if stride > 1:
            x = self.g.op(
                "AveragePool", x, kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4,
                count_include_pad=0,
            )  # fmt: skip
        leaf = "shortcut.expand" if stride > 1 else "shortcut"
        return self.conv(f"{path}.{leaf}", x) if f"{path}.{leaf}.weight" in self.g.weights else x

    def normed(self, path: str, x: Name) -> Name:
        """LayerNorm of the channels of each cell."""
        g = self.g
        weight, bias = (g.weight(f"{path}.{part}") for part in ("weight", "bias"))
        cells = g.op("Transpose", x, perm=[0, 2, 3, 1])  # [B, rows, columns, C]
        cells = g.layer_norm(cells, weight, bias, plans.LAYER_NORM_EPS)
        return g.op("Transpose", cells, perm=[0, 3, 1, 2])


class _ResNet(_Writer):
    """A ResNet V2 whose norms stand behind convolutions, or its stem alone."""

    def map(self, x: Name) -> Name:
        first = self.stem.convs[0].path.removesuffix("conv")
        x = self.pooled(self.normed(f"{first}conv", f"{first}norm", x))
        stage = 0
        while f"{PATH}.stages.{stage}.blocks.0.conv1.weight" in self.g.weights:
            block = 0
            while f"{PATH}.stages.{stage}.blocks.{block}.conv1.weight" in self.g.weights:
                x = self.bottleneck(f"{PATH}.stages.{stage}.blocks.{block}", x)
                block += 1
            stage += 1
        return x

    def bottleneck(self, path: str, x: Name) -> Name:
        y, shortcut = x, x
        if f"{path}.downsample.conv.weight" in self.g.weights:
            down = f"{path}.downsample"
            shortcut = self.normed(f"{down}.conv", f"{down}.norm", x, act=False)
        for place in (1, 2, 3):
            y = self.normed(f"{path}.conv{place}", f"{path}.norm{place}", y, act=place < 3)
        return self.g.activation(self.stem.activation, self.g.op("Add", y, shortcut))

    def normed(self, path: str, norm: str, x: Name, act: bool = True) -> Name:
        """A convolution of standardised weights, its GroupNorm and activation."""
        g, own = self.g, self.stem.of(path)
        y = self.conv(path, x, self.standardised(f"{path}.weight"))
        parts = g.reshape(y, 0, plans.GROUPS, -1)
        ones = g.stored(f"const/ones[{plans.GROUPS}]", np.ones(plans.GROUPS, np.float32))
        zeros = g.stored(f"const/zeros[{plans.GROUPS}]", np.zeros(plans.GROUPS, np.float32))
        parts = g.op("InstanceNormalization", parts, ones, zeros, epsilon=plans.NORM_EPS)
        y = g.reshape(parts, 0, own.outs, own.rows, own.columns)
        y = g.op("Mul", y, g.reshape(g.weight(f"{norm}.weight"), -1, 1, 1))
        y = g.op("Add", y, g.reshape(g.weight(f"{norm}.bias"), -1, 1, 1))
        return g.activation(self.stem.activation, y) if act else y

    def standardised(self, name: str) -> Name:
        """A weight with mean 0 and deviation 1 for each output channel."""
        g, axes = self.g, [1, 2, 3]
        weight = g.weight(name)
        centred = g.op("Sub", weight, g.reduce("ReduceMean", weight, axes, keepdims=True))
        squares = g.op("Mul", centred, centred)
        variance = g.reduce("ReduceMean", squares, axes, keepdims=True)
        root = g.op("Sqrt", g.op("Add", variance, g.number(plans.WEIGHT_EPS)))
        return g.op("Div", centred, root)

    def pooled(self, x: Name) -> Name:
        """The largest of 3 × 3 cells, every second row and column, padded as TensorFlow does."""
        own, side, stride = self.stem.convs[0], 3, 2
        lacking = [
            max((math.ceil(n / stride) - 1) * stride + side - n, 0) for n in (own.rows, own.columns)
        ]
        pads = [n // 2 for n in lacking] + [n - n // 2 for n in lacking]
        return self.g.op("MaxPool", x, kernel_shape=[side] * 2, strides=[stride] * 2, pads=pads)

"""The layers in ONNX that treat each token, or each patch, by itself; of any network with tokens.

Which layers there are follows from the names of the weights. Tokens are float32 between layers; in
float16 files what a linear layer gives is float16 until it is cast back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import TensorProto

from ltmp_export.backbones.vit import differential, feed_forward, parallel, stems
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.graph.unit import unit
from ltmp_export.plan import mlps
from ltmp_export.plan import parallel as plan_parallel
from ltmp_export.plan.linears import COARSE_EMBEDDING, EMBEDDING
from ltmp_export.plan.stem import Stem
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import (
    FP16,
    INTEGERS,
    REST_LEVELS,
    SCALE,
    TERMS,
    ZERO,
    Activation,
    Precision,
)
from ltmp_export.precision.integers import mean_keys, quantised


class Shaped(Protocol):
    """What these layers ask of a geometry."""

    @property
    def norm_eps(self) -> float:
        """Epsilon of every norm."""

    @property
    def activation(self) -> str:
        """Of the MLPs."""


@dataclass(frozen=True)
class Layers:
    """Writes them.

    Attributes:
        g: Where to.
        vit: Geometry, whatever network it is.
        precision: What linear layers compute in.
        one: For int8 the float32 scalar 1, as something that is computed from the images: with it
            as the scale of the activations onnxruntime joins an integer product with what follows
            (`MatMulIntegerToFloat`), which it does not where it finds nothing but constants.
    """

    g: GraphBuilder
    vit: Shaped
    precision: Precision
    one: Name = ""

    def half(self, place: str) -> AbstractContextManager[None]:
        """Write what follows in float16, if a float16 file has room there; see `Precision.kept`."""
        wanted = self.precision.kind == FP16 and place not in self.precision.kept
        return self.g.half(wanted, place)

    def linear(self, path: str, x: Name) -> Name:
        """A linear layer on rows [T, in] → [T, out], with the bias if the weights have one."""
        if path in self.precision.layers:
            write = self._linear_qdq if self.precision.qdq else self._linear_int8
            return write(path, x, self.precision.layers[path])
        with self.half(path):
            inputs = [self.g.cast(x), self.g.weight(f"{path}.weight")]
            if (bias := self.bias(path)) is not None:
                inputs.append(bias)
            return self.g.op("Gemm", *inputs, transB=1)

    def bias(self, path: str) -> Name | None:
        """The bias of a linear layer, or None where it has none."""
        return self.g.weight(f"{path}.bias") if f"{path}.bias" in self.g.weights else None

    def _linear_int8(self, path: str, x: Name, given: Activation) -> Name:
        """The same with int8 products: rows quantised to uint8, weights to int8 by column.

        The names of what it quantises are stable, see `precision.record.names`. Each product has a
        copy of the weights: with `session.x64quantprecision` onnxruntime replaces them, once for
        each.
        """
        g = self.g
        own = np.asarray(g.weights[f"{path}.weight"])
        weight, columns = quantised(own.reshape(len(own), -1))  # also a convolution's of one cell
        scale, total = "", ""
        for term, suffix in enumerate(TERMS[: given.terms]):
            q, scale, zero = self._rounded(path, x, given, term, scale)
            stored = g.stored(f"{path}.weight.int8{suffix}", weight)
            product = g.op("Cast", g.op("MatMulInteger", q, stored, zero), to=TensorProto.FLOAT)
            if given.scale is None:
                factors = g.op("Mul", scale, g.stored(f"{path}.weight.scale", columns))
            else:
                constant = columns * np.float32(given.steps()[term][0])
                factors = g.op("Mul", self.one, g.stored(f"{path}.weight.scale{suffix}", constant))
            y = g.op("Mul", product, factors)
            if not term and (bias := self.bias(path)) is not None:
                y = g.op("Add", y, bias)
            total = g.op("Add", total, y) if term else y
            x = g.op("Sub", x, g.op("DequantizeLinear", q, scale, zero))
        return total

    def _linear_qdq(self, path: str, x: Name, given: Activation) -> Name:
        """The same as float32 products of rows and weights that were int8, zero points 0.

        TensorRT, QNN and OpenVINO look for this form; TensorRT takes no other zero point.
        """
        g = self.g
        own = np.asarray(g.weights[f"{path}.weight"])
        weight, columns = quantised(own.reshape(len(own), -1))
        integers = g.stored(f"{path}.weight.int8", weight)
        scales = g.stored(f"{path}.weight.scale", columns)
        shown, zero, total = g.op("DequantizeLinear", integers, scales, axis=1), g.signed(0), ""
        for (step, _), suffix in zip(given.steps(), TERMS, strict=False):
            name = f"{path.rpartition('.')[2]}{INTEGERS}{suffix}"
            q = g.op("QuantizeLinear", x, g.number(step), zero, name=name)
            back = g.op("DequantizeLinear", q, g.number(step), zero)
            y = g.op("MatMul", back, shown)
            total = g.op("Add", total, y) if total else y
            x = g.op("Sub", x, back)
        bias = self.bias(path)
        return total if bias is None else g.op("Add", total, bias)

    def _rounded(
        self, path: str, x: Name, given: Activation, term: int, before: Name
    ) -> tuple[Name, Name, Name]:
        """Rows as uint8, with their scale and zero point; `before` is the first term's scale."""
        g, leaf = self.g, path.rpartition(".")[2]
        name = f"{leaf}{INTEGERS}{TERMS[term]}"
        if given.scale is None and not term:
            names = (name, f"{leaf}{SCALE}", f"{leaf}{ZERO}")
            q, scale, zero = g.ops("DynamicQuantizeLinear", x, names=names)
            return q, scale, zero
        if given.scale is None:
            scale, zero = g.op("Mul", before, g.number(1 / REST_LEVELS)), g.byte(128)
        else:
            step, point = given.steps()[term]
            scale, zero = g.number(step), g.byte(point)
        return g.op("QuantizeLinear", x, scale, zero, name=name), scale, zero

    def exact(self, x: Name) -> Name:
        """What a linear layer gave, as float32."""
        return self.g.cast(x)

    def norm(self, path: str, x: Name) -> Name:
        """The norm if the weights have one of that name, RMSNorm if without bias; else nothing."""
        if f"{path}.weight" not in self.g.weights:
            return x
        weight = self.g.weight(f"{path}.weight")
        if f"{path}.bias" not in self.g.weights:
            return self.g.rms_norm(self.exact(x), weight, self.vit.norm_eps)
        bias = self.g.weight(f"{path}.bias")
        return self.g.layer_norm(self.exact(x), weight, bias, self.vit.norm_eps)

    def layer_scale(self, path: str, x: Name) -> Name:
        """LayerScale if the weights have one of that name, else nothing."""
        if f"{path}.gamma" not in self.g.weights:
            return x
        return self.g.op("Mul", self.exact(x), self.g.weight(f"{path}.gamma"))

    def mlp(self, path: str, x: Name, kind: str = mlps.PLAIN) -> Name:
        """Normalised rows [T, C] → [T, C], without the residual.

        Args:
            path: Of the block.
            x: The rows.
            kind: Of the MLP, one of `plan.mlps.KINDS`.
        """
        out = feed_forward.write(self, f"{path}.mlp", x, kind, self.vit.activation)
        return self.exact(self.layer_scale(f"{path}.ls2", out))

    def embedded(self, path: str, images: Name, sides: Sequence[int], patches: int) -> Name:
        """Images [B, channels, height, width] in patches of these sides → [B, patches, C]."""
        g, weight = self.g, f"{path}.weight"
        with self.half(path):
            inputs = [g.cast(images), g.weight(weight)]
            if f"{path}.bias" in g.weights:
                inputs.append(g.weight(f"{path}.bias"))
            grid = g.op("Conv", *inputs, strides=list(sides), kernel_shape=list(sides))
            rows = g.reshape(grid, 0, g.weights[weight].shape[0], patches)
            x = g.op("Transpose", rows, perm=[0, 2, 1])
        return self.exact(x)


@dataclass(frozen=True)
class VitLayers(Layers):
    """Those of a ViT alone."""

    vit: Vit

    def attention(self, path: str) -> str:
        """The path of what attends in a block."""
        return plan_parallel.attention(path, self.vit.parallel)

    def entered(self, path: str, rows: Name) -> Name:
        """Normalised rows [T, C] of a block, as attention is given them.

        If the MLP runs beside it, that is what the layer of both makes of them.
        """
        return self.linear(f"{path}.in_proj", rows) if self.vit.parallel else rows

    def projected(self, path: str, rows: Name, layout: Layout) -> tuple[Name, Name, Name]:
        """Rows of a block, see `entered` → queries, keys and values [B, H, N, D]."""
        layer = f"{path}.in_proj" if self.vit.parallel else f"{path}.attn.qkv"
        if self.vit.parallel:
            qkv = parallel.attention_part(self, path, rows)
        else:
            qkv = self.linear(layer, rows)
        with self.half(layer):
            if self.vit.differential:
                return differential.projected(self, qkv, layout)
            return layout.split_heads(qkv, self.vit.heads, self.vit.head_width)

    def mean_key(self, path: str, x: Name) -> Name:
        """Keys for the metric of similarity in float32, by a projection of their own.

        Args:
            path: Of the attention.
            x: [T, C] normalised tokens.

        Returns:
            [T, D]: the mean over heads, of unit length.
        """
        g, vit = self.g, self.vit
        separate = f"{path}.k_norm.weight" in g.weights  # each head is normalised before the mean
        inputs = [x]
        for part, array in mean_keys(g.weights, path, vit.key_width, separate).items():
            inputs.append(g.stored(f"{path}.metric.{part}", array))
        metric = g.op("Gemm", *inputs, transB=1)
        if separate:
            per_head = g.reshape(metric, -1, vit.maps, vit.key_width)
            metric = g.reduce("ReduceMean", self.norm(f"{path}.k_norm", per_head), [1])
        return unit(g, metric, vit.key_width)

    def patches(self, images: Name) -> Name:
        """[B, channels, height, width] → embedded patches [B, patches, C]."""
        g, vit = self.g, self.vit
        if "patch_embed.norm_pre.weight" in g.weights:
            return self._normed_patches(images)
        if vit.stem is not None:
            return self._of_map(vit.stem, images)
        x = self._embedded(EMBEDDING, images, 1)
        if f"{COARSE_EMBEDDING}.weight" in g.weights:
            coarse = self._embedded(COARSE_EMBEDDING, images, 2)  # [B, patches / 4, C]
            rows, columns = vit.grid
            lies_in = [
                r // 2 * (columns // 2) + c // 2 for r in range(rows) for c in range(columns)
            ]
            x = g.op("Add", x, g.op("Gather", coarse, g.ints(*lies_in), axis=1))
        return self.norm("patch_embed.norm", x)

    def _of_map(self, stem: Stem, images: Name) -> Name:
        """The same behind a stem of convolutions."""
        x = stems.write(self, stem, images)
        if stem.patch is not None:
            return self.embedded(EMBEDDING, x, stem.patch, self.vit.patches)
        flat = self.g.reshape(x, 0, stem.width, self.vit.patches)
        return self.g.op("Transpose", flat, perm=[0, 2, 1])

    def _embedded(self, path: str, images: Name, times: int) -> Name:
        """Patches so many times as high and wide: [B, patches / times², C]."""
        sides = [times * side for side in self.vit.patch_size]
        return self.embedded(path, images, sides, self.vit.patches // times**2)

    def _normed_patches(self, images: Name) -> Name:
        """The same where the pixels of a patch are normalised before they are projected."""
        g, vit = self.g, self.vit
        (height, width), (ph, pw) = vit.image_size, vit.patch_size
        images = self.exact(images)
        x = g.reshape(images, 0, vit.in_chans, height // ph, ph, width // pw, pw)
        x = g.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5])  # [B, rows, columns, channels, ph, pw]
        x = g.reshape(x, -1, vit.in_chans * ph * pw)  # [B * patches, pixels]
        weight = g.reshape(g.weight("patch_embed.proj.weight"), vit.width, -1)
        inputs = [self.norm("patch_embed.norm_pre", x), weight]
        if "patch_embed.proj.bias" in g.weights:
            inputs.append(g.weight("patch_embed.proj.bias"))
        x = self.norm("patch_embed.norm", g.op("Gemm", *inputs, transB=1))
        return g.reshape(x, -1, vit.patches, vit.width)

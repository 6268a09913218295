"""A plain ViT and its plan rewritten as an export-friendly graph for any batch.

The paper's model computes one image with shapes that depend on it. Here the tokens of all images
are packed as rows, every pointwise layer runs on the rows as they are, and the three ragged pieces
(attention, matching and deciding, pooling) come from `ragged`. With a plan that reduces nothing the
same code writes the dense model, so that the two differ in the reduction only.

Weights keep their checkpoint names and layout in the graph, which makes an exported file readable
as a set of weights again (`onnx_export.dense_baseline` writes the dense model from it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ltmp_export import ragged
from ltmp_export.graph import GraphBuilder, Name
from ltmp_export.plan import Merge, Plan, Step
from ltmp_export.ragged import Candidates, Layout, Packed
from ltmp_export.vit import Vit

BATCH = "batch"


def lower(
    vit: Vit,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    token_counts: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """Write the ONNX model of a ViT under a plan.

    The model maps `images` float32 [batch, channels, height, width] to `logits` float32
    [batch, classes]; on request also to `token_counts` int64 [batch, depth].

    Args:
        vit: Geometry.
        plan: The steps of each block; empty steps give the dense model.
        weights: Float32 arrays by timm name; features of a block follow from their presence.
        opset: Version of the standard domain to write.
        token_counts: Add the second output.
        metadata: Stored as `metadata_props`.
    """
    return _Lowering(vit, plan, GraphBuilder(opset, weights)).model(token_counts, metadata or {})


class _Lowering:
    """Writes one graph; holds what every piece of it needs to know."""

    def __init__(self, vit: Vit, plan: Plan, g: GraphBuilder) -> None:
        self.vit = vit
        self.plan = plan
        self.g = g

    def model(self, token_counts: bool, metadata: Mapping[str, str]) -> ModelProto:
        g, vit = self.g, self.vit
        images = g.input("images", TensorProto.FLOAT, (BATCH, *vit.input_size))
        with g.scope("embed"):
            tokens = self.embed(images)
        counts = []
        for index, steps in enumerate(self.plan.blocks):
            with g.scope(f"block_{index:02d}"):
                tokens = self.block(f"blocks.{index}", steps, tokens)
                counts.append(g.op("Unsqueeze", tokens.layout.count, g.ints(1)))
        with g.scope("head"):
            logits = self.head(tokens)
        g.output(logits, "logits", TensorProto.FLOAT, (BATCH, vit.classes))
        if token_counts:
            per_block = g.op("Concat", *counts, axis=1)
            g.output(per_block, "token_counts", TensorProto.INT64, (BATCH, vit.depth))
        return g.build(f"{self.plan.family}_{vit.name}", metadata)

    def embed(self, images: Name) -> Packed:
        """[B, channels, height, width] → packed rows [B * N, C], all images of N tokens."""
        g, vit = self.g, self.vit
        inputs = [images, g.weight("patch_embed.proj.weight")]
        if "patch_embed.proj.bias" in g.weights:
            inputs.append(g.weight("patch_embed.proj.bias"))
        grid = g.op(
            "Conv", *inputs, strides=list(vit.patch_size), kernel_shape=list(vit.patch_size)
        )
        x = g.reshape(grid, 0, vit.width, vit.patches)
        x = self.norm("patch_embed.norm", g.op("Transpose", x, perm=[0, 2, 1]))  # [B, N - 1, C]

        batch = g.op("Shape", images, start=0, end=1)  # [1]
        shape = g.op("Concat", batch, g.ints(1, vit.width), axis=0)
        class_token = g.op("Expand", g.weight("cls_token"), shape)  # [B, 1, C]
        position = g.weight("pos_embed")
        covers_class = g.weights["pos_embed"].shape[1] == vit.patches + 1
        if not covers_class:
            x = g.op("Add", x, position)
        x = g.op("Concat", class_token, x, axis=1)
        if covers_class:
            x = g.op("Add", x, position)
        x = self.norm("norm_pre", g.reshape(x, -1, vit.width, name="tokens"))  # [B * N, C]
        count = g.op("Expand", g.ints(vit.patches + 1), batch)
        return Packed(x, None, ragged.make_layout(g, count))

    def block(self, path: str, steps: tuple[Step, ...], tokens: Packed) -> Packed:
        """One transformer block: attention, the plan's steps, MLP."""
        g = self.g
        size = None if tokens.size is None else ragged.pad(g, tokens.size, tokens.layout)
        with g.scope("attn"):
            mixed, weights, keys = self.attention(path, tokens, size)
            tokens = replace(tokens, x=g.op("Add", tokens.x, mixed))
        if steps:
            candidates = self.candidates(tokens, size, steps, weights, keys)
            tokens = ragged.reduce_tokens(g, steps, candidates)
        with g.scope("mlp"):
            update = self.mlp(path, tokens.x)
        return replace(tokens, x=g.op("Add", tokens.x, update, name="tokens"))

    def attention(self, path: str, tokens: Packed, size: Name | None) -> tuple[Name, Name, Name]:
        """The scaled output [T, C], attention weights [B, H, N, N] and keys [B, H, N, D]."""
        g, vit, layout = self.g, self.vit, tokens.layout
        qkv = self.linear(f"{path}.attn.qkv", self.norm(f"{path}.norm1", tokens.x))
        q, k, v = ragged.split_heads(g, qkv, layout, vit.heads, vit.head_width)  # [B, H, N, D]
        q = self.norm(f"{path}.attn.q_norm", q)
        k = self.norm(f"{path}.attn.k_norm", k)
        q = g.op("Mul", q, g.number(vit.head_width**-0.5))
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op("Add", scores, ragged.attention_bias(g, size, layout))
        weights = g.op("Softmax", scores, axis=-1)  # [B, H, N, N]
        mixed = g.op("MatMul", weights, v)  # [B, H, N, D]
        rows = ragged.join_heads(g, mixed, layout, vit.heads, vit.head_width)  # [T, H * D]
        out = self.linear(f"{path}.attn.proj", self.norm(f"{path}.attn.norm", rows))
        return self.layer_scale(f"{path}.ls1", out), weights, k

    def candidates(
        self,
        tokens: Packed,
        size: Name | None,
        steps: tuple[Step, ...],
        weights: Name,
        keys: Name,
    ) -> Candidates:
        """What the steps decide on: the padded view with just the scores they will read."""
        g, layout = self.g, tokens.layout
        needs_metric = any(isinstance(step, Merge) for step in steps)
        return Candidates(
            x=tokens.x,
            row=layout.row,
            alive=layout.valid,
            size=size,
            importance=(
                ragged.importance(g, weights, layout, self.vit.heads)
                if ragged.needs_importance(steps)
                else None
            ),
            metric=ragged.metric(g, keys) if needs_metric else None,
            layout=layout,
            width=self.vit.width,
            metric_width=self.vit.head_width,
        )

    def mlp(self, path: str, x: Name) -> Name:
        """[T, C] → [T, C], without the residual."""
        hidden = self.linear(f"{path}.mlp.fc1", self.norm(f"{path}.norm2", x))
        hidden = self.norm(f"{path}.mlp.norm", self.g.activation(self.vit.activation, hidden))
        return self.layer_scale(f"{path}.ls2", self.linear(f"{path}.mlp.fc2", hidden))

    def head(self, tokens: Packed) -> Name:
        """Packed rows → logits [B, classes]."""
        if self.vit.pool == "token":
            pooled = self.norm("norm", self.g.op("Gather", tokens.x, tokens.layout.offset, axis=0))
        else:
            pooled = self.mean_of_patches(self.norm("norm", tokens.x), tokens.layout)
        return self.linear("head", self.norm("fc_norm", pooled))

    def mean_of_patches(self, x: Name, layout: Layout) -> Name:
        """[T, C] → [B, C]: plain mean over each image's patch tokens, zeros if none is left."""
        g = self.g
        patches = g.slice(layout.valid, 1, 1)  # [B, N - 1] bool
        selected = g.op("Cast", patches, to=TensorProto.FLOAT)
        rows = g.op("Gather", x, g.slice(layout.row, 1, 1), axis=0)  # [B, N - 1, C]
        total = g.op("MatMul", g.op("Unsqueeze", selected, g.ints(1)), rows)  # [B, 1, C]
        count = g.op("Max", g.op("Sub", layout.count, g.index(1)), g.index(1))  # [B]
        divisor = g.op("Unsqueeze", g.op("Cast", count, to=TensorProto.FLOAT), g.ints(1))
        return g.op("Div", g.op("Squeeze", total, g.ints(1)), divisor)

    def linear(self, path: str, x: Name) -> Name:
        """A linear layer on rows [T, in] → [T, out], with the bias if the weights have one."""
        inputs = [x, self.g.weight(f"{path}.weight")]
        if f"{path}.bias" in self.g.weights:
            inputs.append(self.g.weight(f"{path}.bias"))
        return self.g.op("Gemm", *inputs, transB=1)

    def norm(self, path: str, x: Name) -> Name:
        """LayerNorm if the weights have one of that name, else nothing."""
        if f"{path}.weight" not in self.g.weights:
            return x
        weight, bias = self.g.weight(f"{path}.weight"), self.g.weight(f"{path}.bias")
        return self.g.layer_norm(x, weight, bias, self.vit.norm_eps)

    def layer_scale(self, path: str, x: Name) -> Name:
        """LayerScale if the weights have one of that name, else nothing."""
        if f"{path}.gamma" not in self.g.weights:
            return x
        return self.g.op("Mul", x, self.g.weight(f"{path}.gamma"))

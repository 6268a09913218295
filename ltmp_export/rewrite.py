"""A plain ViT and its plan rewritten as an export-friendly graph for any batch.

The paper's model computes one image with shapes that depend on it. Here the tokens of all images
are packed as rows, and every pointwise layer runs on the rows as they are. What must tell images
apart (attention, pooling) comes from `ragged`, what decides and merges from `reduction`. With a
plan that reduces nothing the same code writes the dense model, so that the two differ in the
reduction only.

Weights keep their checkpoint names and layout in the graph, which makes an exported file readable
as a set of weights again (`onnx_export.dense_baseline` writes the dense model from it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ltmp_export import ragged, reduction
from ltmp_export.graph import GraphBuilder, Name
from ltmp_export.plan import Merge, Plan, Step
from ltmp_export.ragged import Layout, make_layout
from ltmp_export.reduction import Candidates
from ltmp_export.vit import Vit

BATCH = "batch"


@dataclass(frozen=True)
class Packed:
    """Tokens between blocks: x [T, C], size [T] or None (all 1), and their layout."""

    x: Name
    size: Name | None
    layout: Layout


def lower(
    vit: Vit,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    batch_size: int | None = None,
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
        batch_size: 1 for a graph that takes single images, None for one that takes any batch.
        token_counts: Add the second output.
        metadata: Stored as `metadata_props`.
    """
    single = batch_size == 1
    lowering = _Lowering(vit, plan, GraphBuilder(opset, weights), single)
    return lowering.model(token_counts, metadata or {})


class _Lowering:
    """Writes one graph; holds what every piece of it needs to know."""

    def __init__(self, vit: Vit, plan: Plan, g: GraphBuilder, single: bool) -> None:
        self.vit = vit
        self.plan = plan
        self.g = g
        self.batch = 1 if single else BATCH

    def model(self, token_counts: bool, metadata: Mapping[str, str]) -> ModelProto:
        g, vit = self.g, self.vit
        images = g.input("images", TensorProto.FLOAT, (self.batch, *vit.input_size))
        with g.scope("embed"):
            tokens = self.embed(images)
        counts = []
        for index, steps in enumerate(self.plan.blocks):
            with g.scope(f"block_{index:02d}"):
                tokens = self.block(f"blocks.{index}", steps, tokens)
                g.keep(tokens.layout.count)  # what `check` and `bench` read
                counts.append(g.op("Unsqueeze", tokens.layout.count, g.ints(1)))
        with g.scope("head"):
            logits = self.head(tokens)
        g.output(logits, "logits", TensorProto.FLOAT, (self.batch, vit.classes))
        if token_counts:
            per_block = g.op("Concat", *counts, axis=1)
            g.output(per_block, "token_counts", TensorProto.INT64, (self.batch, vit.depth))
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

        tokens = vit.patches + 1
        class_token = g.weight("cls_token")
        count, numbers = g.ints(tokens), None
        if self.batch == BATCH:
            batch = g.op("Shape", images, start=0, end=1)  # [1]
            shape = g.op("Concat", batch, g.ints(1, vit.width), axis=0)
            class_token = g.op("Expand", class_token, shape)  # [B, 1, C]
            count = g.op("Expand", count, batch)
            last = g.op("Squeeze", batch, g.ints(0))
            numbers = g.op("Unsqueeze", g.op("Range", g.index(0), last, g.index(1)), g.ints(1))
        even = tokens >= ragged.LEAST_SLOTS
        layout = make_layout(g, count, max(tokens, ragged.LEAST_SLOTS), numbers, even)
        position = g.weight("pos_embed")
        covers_class = g.weights["pos_embed"].shape[1] == vit.patches + 1
        if not covers_class:
            x = g.op("Add", x, position)
        x = g.op("Concat", class_token, x, axis=1)
        if covers_class:
            x = g.op("Add", x, position)
        x = self.norm("norm_pre", g.reshape(x, -1, vit.width, name="tokens"))  # [B * N, C]
        return Packed(x, None, layout)

    def block(self, path: str, steps: tuple[Step, ...], tokens: Packed) -> Packed:
        """One transformer block: attention, the plan's steps, MLP."""
        g = self.g
        with g.scope("attn"):
            weights, keys, values = self.attention(path, tokens)
        reduced = None
        if steps:
            reduced = reduction.decide(g, steps, self.candidates(tokens, steps, weights, keys))
        with g.scope("attn"):
            x = g.op("Add", tokens.x, self.mix(path, tokens.layout, weights, values))
        size, layout = tokens.size, tokens.layout
        if reduced is not None:
            x = reduction.reduce_rows(g, reduced, x, self.vit.width)
            size, layout = reduced.size, reduced.layout
        with g.scope("mlp"):
            update = self.mlp(path, x)
        return Packed(g.op("Add", x, update, name="tokens"), size, layout)

    def attention(self, path: str, tokens: Packed) -> tuple[Name, Name, Name]:
        """Attention weights [B, H, N, N], keys and values [B, H, N, D]."""
        g, vit, layout = self.g, self.vit, tokens.layout
        qkv = self.linear(f"{path}.attn.qkv", self.norm(f"{path}.norm1", tokens.x))
        q, k, v = layout.split_heads(qkv, vit.heads, vit.head_width)
        q = self.norm(f"{path}.attn.q_norm", q)
        k = self.norm(f"{path}.attn.k_norm", k)
        q = g.op("Mul", q, g.number(vit.head_width**-0.5))
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        bias = layout.score_bias(tokens.size)
        if bias is not None:
            scores = g.op("Add", scores, bias)
        return g.op("Softmax", scores, axis=-1), k, v

    def mix(self, path: str, layout: Layout, weights: Name, v: Name) -> Name:
        """The output [T, C] of attention from its weights and values, without the residual."""
        g, vit = self.g, self.vit
        rows = layout.join_heads(g.op("MatMul", weights, v), vit.heads, vit.head_width)
        out = self.linear(f"{path}.attn.proj", self.norm(f"{path}.attn.norm", rows))
        return self.layer_scale(f"{path}.ls1", out)

    def candidates(
        self, tokens: Packed, steps: tuple[Step, ...], weights: Name, keys: Name
    ) -> Candidates:
        """What the steps decide on, with just the scores they will read."""
        g, vit, layout = self.g, self.vit, tokens.layout
        merging = any(isinstance(step, Merge) for step in steps)
        pruning = reduction.needs_importance(steps)
        return Candidates(
            layout=layout,
            rows=layout.rows,
            alive=layout.valid,
            old_rows=g.op("Shape", tokens.x, end=1),
            size=tokens.size,
            importance=layout.importance(weights, vit.heads) if pruning else None,
            metric=layout.metric(keys, vit.heads, vit.head_width) if merging else None,
            metric_width=vit.head_width,
        )

    def mlp(self, path: str, x: Name) -> Name:
        """[T, C] → [T, C], without the residual."""
        hidden = self.linear(f"{path}.mlp.fc1", self.norm(f"{path}.norm2", x))
        hidden = self.norm(f"{path}.mlp.norm", self.g.activation(self.vit.activation, hidden))
        return self.layer_scale(f"{path}.ls2", self.linear(f"{path}.mlp.fc2", hidden))

    def head(self, tokens: Packed) -> Name:
        """Packed rows → logits [B, classes]."""
        layout = tokens.layout
        if self.vit.pool == "token":
            pooled = self.norm("norm", self.g.op("Gather", tokens.x, layout.class_rows(), axis=0))
        else:
            pooled = layout.mean_of_patches(self.norm("norm", tokens.x))
        return self.linear("head", self.norm("fc_norm", pooled))

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

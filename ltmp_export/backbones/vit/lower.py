"""A plain ViT and its plan rewritten as an export-friendly graph for any batch.

The paper's model computes one image with shapes that depend on it. Here the tokens of all images
are packed as rows, and every pointwise layer (`layers`) runs on the rows as they are. What must
tell images apart (attention, pooling) comes from `graph.ragged`, what decides and merges from
the steps' face `packed`. A static plan has the same number of slots for every image; there their
face `slots` decides and merges. With a plan that reduces nothing the same code writes the dense
model, so that the two differ in the reduction only.

Weights keep their checkpoint names and layout in the graph, which makes an exported file readable
as a set of weights again (`model_file.model.dense_baseline` writes the dense model from it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.graph import packed, ragged
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Candidates
from ltmp_export.graph.ragged import Layout, fixed_layout, make_layout
from ltmp_export.graph.slots import Slots
from ltmp_export.plan import faces
from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.plan import Plan, demands
from ltmp_export.plan.scores import CLASS_ATTENTION, IMPORTANCE, METRIC
from ltmp_export.plan.step import Step
from ltmp_export.precision.formats import FP16, Precision
from ltmp_export.steps import lowering

BATCH = "batch"
FLOAT = int(TensorProto.FLOAT)


@dataclass(frozen=True)
class Packed:
    """Tokens between blocks.

    Attributes:
        x: Rows [T, C]; [B, N, C] where the plan is static.
        size: [T] or [B, N] likewise, or None while all are 1.
        layout: Where they are.
        owned: As of `Slots`, or None.
        dropped: [B] tokens that a budget had no room for in the block before, or None.
    """

    x: Name
    size: Name | None
    layout: Layout
    owned: Name | None = None
    dropped: Name | None = None


def lower(
    vit: Vit,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    batch_size: int | None = None,
    token_counts: bool = False,
    precision: Precision | None = None,
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
        precision: In which numbers it computes, float32 by default; of `images` and `logits` too.
        metadata: Stored as `metadata_props`.
    """
    lowering = _Lowering(
        vit, plan, GraphBuilder(opset, weights), precision or Precision(), batch_size == 1
    )
    return lowering.model(token_counts, metadata or {})


def half_places(
    vit: Vit,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    batch_size: int | None,
    precision: Precision,
) -> dict[Name, str]:
    """What of the model each float16 tensor of such a graph belongs to, see `Precision.kept`.

    Of tensors that are the graph's inputs or outputs it is their own name.
    """
    g = GraphBuilder(opset, weights)
    _Lowering(vit, plan, g, precision, batch_size == 1).model(False, {})
    return g.places


class _Lowering:
    """Writes one graph; holds what every piece of it needs to know."""

    def __init__(
        self, vit: Vit, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        self.vit = vit
        self.plan = plan
        self.g = g
        self.precision = precision
        self.layers = Layers(g, vit, precision)
        self.batch = 1 if single else BATCH
        self.broken: Name | None = None  # see `zeros`

    def model(self, token_counts: bool, metadata: Mapping[str, str]) -> ModelProto:
        g, vit = self.g, self.vit
        number = TensorProto.FLOAT16 if self.precision.io == FP16 else TensorProto.FLOAT
        images = g.input("images", number, (self.batch, *vit.input_size))
        with g.scope("embed"):
            if self.precision.layers:
                self.layers = replace(self.layers, one=self.one(images))
            tokens = self.embed(images)
        counts, dropped = [], []
        for index, steps in enumerate(self.plan.blocks):
            with g.scope(f"block_{index:02d}"):
                tokens, count = self.transformed(index, steps, tokens)
                g.keep(count)  # what `check` and `bench` read
                counts.append(count)
                if tokens.dropped is not None:
                    dropped.append(tokens.dropped)
        with g.scope("head"):
            logits = self.head(self.entering(vit.depth, tokens))
            if self.broken is not None:
                logits = g.op("Add", logits, self.broken)
            with g.half(self.precision.io == FP16, "logits"):
                logits = g.cast(logits)
        g.output(logits, "logits", number, (self.batch, vit.classes))
        if token_counts:
            self.per_block("token_counts", counts)
        if dropped:
            self.per_block("overflow", dropped)
        return g.build(f"{self.plan.family}_{vit.name}", metadata)

    def one(self, images: Name) -> Name:
        """The number 1, computed from the images, see `Layers.one`."""
        g = self.g
        if self.batch == BATCH:
            batch = g.op("Squeeze", g.op("Shape", images, start=0, end=1), g.ints(0))
            return g.op("Cast", g.op("Min", g.op("Max", batch, g.index(1)), g.index(1)), to=FLOAT)
        pixel = g.op("Gather", g.reshape(images, -1), g.index(0), axis=0)
        return g.op("Pow", pixel, g.number(0.0))  # also of a NaN

    def zeros(self, patches: Name) -> Name:
        """[B, 1]: 0, or NaN for an image with a number that is NaN or infinite.

        Such a number would end in a layer that rounds to integers, and a class come out.
        """
        g = self.g
        zero = g.op("Mul", g.reduce("ReduceSum", patches, [1, 2]), g.number(0.0))
        return g.op("Unsqueeze", zero, g.ints(1))

    def per_block(self, name: str, values: Sequence[Name]) -> None:
        """An output int64 [batch, depth] from a [B] of each block."""
        columns = (self.g.op("Unsqueeze", value, self.g.ints(1)) for value in values)
        joined = self.g.op("Concat", *columns, axis=1)
        self.g.output(joined, name, TensorProto.INT64, (self.batch, self.vit.depth))

    def embed(self, images: Name) -> Packed:
        """[B, channels, height, width] → packed rows [B * N, C], all images of N tokens."""
        g, vit = self.g, self.vit
        x = self.layers.patches(images)  # [B, patches, C]
        if self.precision.layers:
            self.broken = self.zeros(x)
        tokens = vit.tokens
        prefix = [g.weight(name) for name in ("cls_token", "dist_token")[: vit.prefix]]
        numbers = None
        if self.batch == BATCH:
            batch = g.op("Shape", images, start=0, end=1)  # [1]
            shape = g.op("Concat", batch, g.ints(1, vit.width), axis=0)
            prefix = [g.op("Expand", token, shape) for token in prefix]  # [B, 1, C] each
            last = g.op("Squeeze", batch, g.ints(0))
            numbers = g.op("Unsqueeze", g.op("Range", g.index(0), last, g.index(1)), g.ints(1))
        layout = fixed_layout(g, tokens, numbers)
        if not self.plan.static and tokens < ragged.LEAST_SLOTS:
            layout = make_layout(g, layout.count, ragged.LEAST_SLOTS, numbers)
        position = g.weight("pos_embed")
        covers_prefix = g.weights["pos_embed"].shape[1] == tokens
        if not covers_prefix:
            x = g.op("Add", x, position)
        if prefix:
            x = g.op("Concat", *prefix, x, axis=1)
        if covers_prefix:
            x = g.op("Add", x, position)
        if self.plan.static:
            x = g.op("Identity", x, name="tokens")  # [B, N, C]
        else:
            x = g.reshape(x, -1, vit.width, name="tokens")  # [B * N, C]
        return Packed(self.layers.norm("norm_pre", x), None, layout)

    def entering(self, block: int, tokens: Packed) -> Packed:
        """Tokens as they enter a block, or behind the last one the head."""
        step = self.plan.before.get(block)
        if step is None:
            return tokens
        with self.g.scope(faces.folder(type(step))):
            left = lowering.reduce(self.g, (step,), self.slots(tokens))[-1]
        return Packed(left.x, left.size, fixed_layout(self.g, left.number, tokens.layout.images))

    def slots(self, tokens: Packed) -> Slots:
        """Tokens of a static plan outside of blocks."""
        return Slots(
            number=tokens.layout.most, x=tokens.x, size=tokens.size, scores={}, metric=None,
            alive=None, protected=self.vit.prefix,
        )  # fmt: skip

    def transformed(
        self, index: int, steps: tuple[Step, ...], tokens: Packed
    ) -> tuple[Packed, Name]:
        """Tokens behind a block and what is around it; [B] on how many of them its MLP runs."""
        step = self.plan.before.get(index)
        entered = self.entering(index, tokens)
        if step is None or not step.restores:
            left = self.block(f"blocks.{index}", steps, entered)
            return left, left.layout.count
        left = self.block(f"blocks.{index}", steps, entered, name=None)
        stages = self.slots(tokens), self.slots(entered)
        with self.g.scope(faces.folder(type(step))):
            behind = lowering.restored(self.g, (step,), stages, self.slots(left))
        x = self.g.op("Identity", behind.x, name="tokens")
        return replace(left, x=x, size=behind.size, layout=tokens.layout), left.layout.count

    def block(
        self, path: str, steps: tuple[Step, ...], tokens: Packed, name: str | None = "tokens"
    ) -> Packed:
        """One transformer block: attention, the plan's steps, MLP; `name` of what it gives."""
        g = self.g
        with g.scope("attn"):
            weights, keys, values = self.attention(path, tokens)
            metric = self.metric(path, tokens, keys) if METRIC in demands(steps) else None
        reduced = None
        if not self.plan.static:
            reduced = lowering.decide(g, steps, self.candidates(tokens, steps, weights, metric))
        with g.scope("attn"):
            update = self.mix(path, tokens.layout, weights, values)
            x = g.op("Add", tokens.x, self.shaped(update, tokens.layout))
        if reduced is not None:
            x = packed.reduce_rows(g, reduced, x, self.vit.width)
            left = Packed(x, reduced.size, reduced.layout)
        else:
            left = self.slots_left(steps, replace(tokens, x=x), weights, metric)
        with g.scope("mlp"):
            hidden = self.rows(self.layers.norm(f"{path}.norm2", left.x))
            update = self.shaped(self.layers.mlp(path, hidden), left.layout)
        return replace(left, x=g.op("Add", left.x, update, name=name))

    def shaped(self, rows: Name, layout: Layout) -> Name:
        """Rows [T, C], as [B, N, C] where the plan is static."""
        if not self.plan.static:
            return rows
        return self.g.reshape(rows, -1, layout.most, self.vit.width)

    def rows(self, x: Name) -> Name:
        """The inverse."""
        return self.g.reshape(x, -1, self.vit.width) if self.plan.static else x

    def slots_left(
        self, steps: tuple[Step, ...], tokens: Packed, weights: Name, metric: Name | None
    ) -> Packed:
        """What a static block's steps leave of its tokens [B, N, C]."""
        g, vit, layout = self.g, self.vit, tokens.layout
        if not steps:
            return replace(tokens, layout=self.named_count(layout), dropped=None)
        found = Slots(
            number=layout.most,
            x=tokens.x,
            size=tokens.size,
            scores=self.scores(steps, layout, weights),
            metric=metric,
            alive=None if self.plan.counted else layout.valid,
            protected=vit.prefix,
            owned=tokens.owned,
        )
        left = lowering.reduce(g, steps, found)[-1]
        layout = fixed_layout(g, left.number, layout.images, left.count)
        size = None if left.size is None else g.op("Identity", left.size, name="size")
        return Packed(left.x, size, self.named_count(layout), left.owned, left.dropped)

    def named_count(self, layout: Layout) -> Layout:
        """A count that is known before running gets the name under which others look for it."""
        if not layout.full:
            return layout
        return replace(layout, count=self.g.op("Identity", layout.count, name="count"))

    def attention(self, path: str, tokens: Packed) -> tuple[Name, Name, Name]:
        """Attention weights [B, H, N, N], keys and values [B, H, N, D]."""
        g, vit, layout = self.g, self.vit, tokens.layout
        qkv = self.layers.linear(f"{path}.attn.qkv", self.normed(path, tokens))
        with self.layers.half(f"{path}.attn.qkv"):
            q, k, v = layout.split_heads(qkv, vit.heads, vit.head_width)
        q, k = (self.layers.norm(f"{path}.attn.{n}_norm", x) for n, x in (("q", q), ("k", k)))
        with self.layers.half(f"{path}.attn.scores"):
            q = g.op("Mul", g.cast(q), g.number(vit.head_width**-0.5))
            scores = g.op("MatMul", q, g.op("Transpose", g.cast(k), perm=[0, 1, 3, 2]))
        scores = self.layers.exact(scores)
        bias = layout.score_bias(tokens.size, vit.tokens)
        if bias is not None:
            scores = g.op("Add", scores, bias)
        return g.op("Softmax", scores, axis=-1), k, v

    def normed(self, path: str, tokens: Packed) -> Name:
        """The rows [T, C] that a block's attention sees."""
        return self.rows(self.layers.norm(f"{path}.norm1", tokens.x))

    def metric(self, path: str, tokens: Packed, keys: Name) -> Name:
        """[B, N, D] unit vectors, whose products are the similarity of tokens."""
        vit, layout = self.vit, tokens.layout
        if not self.precision.protects:
            return layout.metric(self.layers.exact(keys), vit.heads, vit.head_width)
        rows = self.layers.mean_key(f"{path}.attn", self.normed(path, tokens))
        return layout.slots_of(rows, vit.head_width)

    def mix(self, path: str, layout: Layout, weights: Name, v: Name) -> Name:
        """The output [T, C] of attention from its weights and values, without the residual."""
        g, vit = self.g, self.vit
        with self.layers.half(f"{path}.attn.mixed"):
            mixed = g.op("MatMul", g.cast(weights), g.cast(v))
            rows = layout.join_heads(mixed, vit.heads, vit.head_width)
        out = self.layers.linear(f"{path}.attn.proj", self.layers.norm(f"{path}.attn.norm", rows))
        return self.layers.exact(self.layers.layer_scale(f"{path}.ls1", out))

    def scores(self, steps: tuple[Step, ...], layout: Layout, weights: Name) -> dict[str, Name]:
        """The scores [B, N] that steps demand, from attention [B, H, N, N]."""
        wanted, found = demands(steps), {}
        if IMPORTANCE in wanted:
            found[IMPORTANCE] = layout.importance(weights, self.vit.heads)
        if CLASS_ATTENTION in wanted:
            found[CLASS_ATTENTION] = layout.class_attention(weights)
        return found

    def candidates(
        self, tokens: Packed, steps: tuple[Step, ...], weights: Name, metric: Name | None
    ) -> Candidates:
        """What the steps decide on, with just the scores they will read."""
        g, vit, layout = self.g, self.vit, tokens.layout
        return Candidates(
            layout=layout,
            rows=layout.rows,
            alive=layout.valid,
            old_rows=g.op("Shape", tokens.x, end=1),
            size=tokens.size,
            importance=self.scores(steps, layout, weights).get(IMPORTANCE),
            metric=metric,
            metric_width=vit.head_width,
        )

    def head(self, tokens: Packed) -> Name:
        """Tokens → logits [B, classes]."""
        layout, tokens = tokens.layout, replace(tokens, x=self.rows(tokens.x))
        if self.vit.distilled:
            return self.distilled_head(tokens)
        if self.vit.pool == "token":
            pooled = self.layers.norm(
                "norm", self.g.op("Gather", tokens.x, layout.class_rows(), axis=0)
            )
        else:
            normed = self.layers.norm("norm", tokens.x)
            pooled = layout.mean_of_patches(normed, tokens.size, self.vit.prefix)
        logits = self.layers.linear("head", self.layers.norm("fc_norm", pooled))
        return self.layers.exact(logits)

    def distilled_head(self, tokens: Packed) -> Name:
        """The mean of what the two heads say, each of its own token, the first two."""
        g, row = self.g, tokens.layout.class_rows()
        said = []
        for path, place in (("head", row), ("head_dist", g.op("Add", row, g.index(1)))):
            token = self.layers.norm("norm", g.op("Gather", tokens.x, place, axis=0))  # [B, C]
            said.append(self.layers.exact(self.layers.linear(path, token)))
        return g.op("Mul", g.op("Add", *said), g.number(0.5))

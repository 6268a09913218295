"""A Swin Transformer and its plan as an export-friendly graph for any batch.

Every image has the same tokens, [B, L, C], as they stand in the image. Windows are cut where
attention looks tokens up (`attention`); in a block with steps the tokens stand window after window
from there to the end of the block. Weights keep their checkpoint names and layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from onnx import ModelProto

from ltmp_export.backbones import edges, writing
from ltmp_export.backbones.edges import BATCH
from ltmp_export.backbones.swin import attention
from ltmp_export.backbones.swin.geometry import Block, Swin
from ltmp_export.backbones.vit import embedding
from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.plan import faces
from ltmp_export.plan.linears import EMBEDDING
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.precision.formats import Precision
from ltmp_export.steps import lowering


class _Lowering:
    """Writes one graph; holds what every piece of it needs to know."""

    def __init__(
        self, swin: Swin, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        self.swin = swin
        self.plan = plan
        self.g = g
        self.precision = precision
        self.layers = Layers(g, swin, precision)
        self.single = single
        self.broken: Name | None = None  # see `embedding.zeros`

    def model(
        self, outputs: Sequence[str], token_counts: bool, metadata: Mapping[str, str]
    ) -> ModelProto:
        g, swin, batch = self.g, self.swin, 1 if self.single else BATCH
        images = edges.images(g, swin, self.precision, batch)
        with g.scope("embed"):
            x = self.embed(images)
        handed: Mapping[str, Name] = {}
        counts = []
        for index, (block, steps) in enumerate(zip(swin.blocks(), self.plan.blocks, strict=True)):
            with g.scope(f"block_{index:02d}"):
                if block.merges:
                    with g.scope("merge"):
                        x = self.merged(block, x)
                count = self.count(block, steps, x)
                g.keep(count)  # what `check` and `bench` read
                counts.append(count)
                if steps:
                    x, handed = self.reduced(block, steps, x, handed)
                else:
                    x = self.block(block, x)
        with g.scope("head"):
            logits = self.classify(x)
        edges.logits(g, logits, swin, self.precision, batch)
        if token_counts:
            edges.per_block(g, "token_counts", counts, swin, batch)
        return g.build(f"{self.plan.family}_{swin.name}", metadata)

    def embed(self, images: Name) -> Name:
        """[B, channels, height, width] → tokens [B, L, C]."""
        g, int8 = self.g, bool(self.precision.layers)
        if int8:
            self.layers = replace(self.layers, one=embedding.one(g, images, self.single))
        patches = self.layers.embedded(EMBEDDING, images, self.swin.patch_size, self.swin.tokens)
        if int8:
            self.broken = embedding.zeros(g, patches)
        return g.op("Identity", self.layers.norm("patch_embed.norm", patches), name="tokens")

    def merged(self, block: Block, x: Name) -> Name:
        """The tokens of the stage before, each four of a square as one: [B, 4 · L, C / 2]."""
        g, layers, (rows, columns) = self.g, self.layers, block.grid
        ins = g.weights[f"{block.merges}.norm.weight"].shape[0]
        grid = g.reshape(x, -1, rows, 2, columns, 2, ins // 4)
        squares = g.reshape(g.op("Transpose", grid, perm=[0, 1, 3, 4, 2, 5]), -1, ins)
        normed = layers.norm(f"{block.merges}.norm", squares)
        reduced = layers.exact(layers.linear(f"{block.merges}.reduction", normed))
        return g.reshape(reduced, -1, block.tokens, block.width)

    def count(self, block: Block, steps: tuple[Step, ...], x: Name) -> Name:
        """[B] tokens that the MLP of a block runs on."""
        g, kept = self.g, block.tokens
        for step in steps:
            kept = step.after(kept, 0) or kept
        count = g.ints(kept)
        if not self.single:
            count = g.op("Expand", count, g.op("Shape", x, start=0, end=1))
        return g.op("Identity", count, name="count")

    def block(self, block: Block, x: Name) -> Name:
        """One transformer block without steps."""
        g = self.g
        with g.scope("attn"):
            mixed = attention.attend(self.layers, block, self.normed(block, x))
            update = attention.project(self.layers, block, mixed, together=True)
            x = g.op("Add", x, update)
        return g.op("Add", x, self.mlp(block, x, block.tokens), name="tokens")

    def reduced(
        self, block: Block, steps: tuple[Step, ...], x: Name, handed: Mapping[str, Name]
    ) -> tuple[Name, Mapping[str, Name]]:
        """One with steps, all of which restore; and what they hand on."""
        g = self.g
        with g.scope("attn"):
            mixed = attention.attend(self.layers, block, self.normed(block, x))
            update = attention.project(self.layers, block, mixed, together=False)
            x = g.op("Add", attention.cut(self.layers, block, x), update)
        given = Slots(
            number=block.tokens, x=x, size=None, scores={}, metric=None, alive=None, protected=0,
            handed=handed,
        )  # fmt: skip
        made = lowering.reduce(g, steps, given)
        left = replace(made, x=g.op("Add", made.x, self.mlp(block, made.x, made.number)))
        for step in steps:
            with g.scope(faces.folder(type(step))):
                left = lowering.restore(g, step, given, made, left)
        return attention.together(self.layers, block, left.x, "tokens"), left.handed

    def normed(self, block: Block, x: Name) -> Name:
        """The rows [B · L, C] that a block's attention sees."""
        return self.g.reshape(self.layers.norm(f"{block.path}.norm1", x), -1, block.width)

    def mlp(self, block: Block, x: Name, number: int) -> Name:
        """What the MLP makes of tokens [B, n, C]."""
        g = self.g
        with g.scope("mlp"):
            rows = g.reshape(self.layers.norm(f"{block.path}.norm2", x), -1, block.width)
            return g.reshape(self.layers.mlp(block.path, rows), -1, number, block.width)

    def classify(self, x: Name) -> Name:
        """Tokens [B, L, C] → logits [B, classes].

        The mean is a product, whose sums have the same order at any batch: onnxruntime's means of
        one image have another.
        """
        g, layers = self.g, self.layers
        last = list(self.swin.blocks())[-1]
        number, width = last.tokens, last.width
        share = g.row(1.0 / number, number)
        mean = g.op("MatMul", share, layers.norm("norm", x))  # [B, 1, C]
        logits = layers.exact(layers.linear("head.fc", g.reshape(mean, -1, width)))
        return logits if self.broken is None else g.op("Add", logits, self.broken)


lower = partial(writing.lower, _Lowering)
half_places = partial(writing.half_places, _Lowering)

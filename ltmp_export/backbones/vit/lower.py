"""A plain ViT and its plan rewritten as an export-friendly graph for any batch.

The paper's model computes one image with shapes that depend on it. Here the tokens of all images
are packed as rows, and every pointwise layer (`layers`) runs on the rows as they are. What must
tell images apart (attention, pooling) comes from `graph.ragged`, what decides and merges from
the steps' face `packed`. A static plan has the same number of slots for every image; there their
face `slots` decides and merges. With a plan that reduces nothing the same code writes the dense
model, so that the two differ in the reduction only.

Weights keep their checkpoint names and layout in the graph, which makes an exported file readable
as a set of weights again (`model_file.dense.dense_baseline` writes the dense model from it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from onnx import ModelProto

from ltmp_export.backbones import edges, writing
from ltmp_export.backbones.edges import BATCH
from ltmp_export.backbones.vit import attention, dynamic, embedding
from ltmp_export.backbones.vit.attention import Bound
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.backbones.vit.left import Left
from ltmp_export.backbones.vit.tokens import Packed
from ltmp_export.graph import owners, packed
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Reduced
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout, fixed_layout
from ltmp_export.graph.single import OneLayout
from ltmp_export.graph.slots import Slots
from ltmp_export.plan import faces
from ltmp_export.plan.outputs import DENSE, OWNERS
from ltmp_export.plan.plan import Plan, demands
from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.step import Step, early, late
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import Precision
from ltmp_export.steps import lowering


class Lowering:
    """Writes one graph; holds what every piece of it needs to know."""

    def __init__(
        self, vit: Vit, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        self.vit = vit
        self.plan = plan
        self.g = g
        self.precision = precision
        self.layers = VitLayers(g, vit, precision)
        self.batch = 1 if single else BATCH
        self.broken: Name | None = None  # see `embedding.zeros`

    def model(
        self, outputs: Sequence[str], token_counts: bool, metadata: Mapping[str, str]
    ) -> ModelProto:
        """The graph."""
        g, vit = self.g, self.vit
        images = edges.images(g, vit, self.precision, self.batch)
        with g.scope("embed"):
            tokens = self.embed(images)
            if {*OWNERS}.intersection(outputs):
                first = owners.first(
                    g, tokens.layout, vit.tokens, vit.prefix,
                    static=self.plan.static, wanted=DENSE in outputs,
                )  # fmt: skip
                tokens = replace(tokens, owners=first)
        counts, dropped = [], []
        for index, steps in enumerate(self.plan.blocks):
            with g.scope(f"block_{index:02d}"):
                tokens, count = self.transformed(index, steps, tokens)
                if not isinstance(tokens.layout, OneLayout):  # see `graph.told`
                    g.keep(count)  # what `check` and `bench` read
                counts.append(count)
                if tokens.dropped is not None:
                    dropped.append(tokens.dropped)
        with g.scope("head"):
            tokens = self.entering(vit.depth, tokens)
        left = Left(self.layers, tokens, self.plan)
        left.give(outputs, self.precision, self.batch, self.broken)
        if token_counts:
            edges.per_block(g, "token_counts", counts, vit, self.batch)
        if dropped:
            edges.per_block(g, "overflow", dropped, vit, self.batch)
        return g.build(f"{self.plan.family}_{vit.name}", metadata)

    def embed(self, images: Name) -> Packed:
        """[B, channels, height, width] → the tokens of all images."""
        single, int8 = self.batch != BATCH, bool(self.precision.layers)
        if int8:
            self.layers = replace(self.layers, one=embedding.one(self.g, images, single))
        patches = self.layers.patches(images)  # [B, patches, C]
        if int8:
            self.broken = embedding.zeros(self.g, patches)
        x, layout = embedding.embed(
            self.layers, images, patches, single=single, static=self.plan.static
        )
        return Packed(x, None, layout)

    def entering(self, block: int, tokens: Packed) -> Packed:
        """Tokens as they enter a block, or behind the last one the head."""
        step = self.plan.before.get(block)
        if step is None:
            return tokens
        scope = contextlib.nullcontext() if step.decides else self.g.scope(faces.folder(type(step)))
        with scope:
            left = lowering.reduce(self.g, (step,), self.slots(tokens))
        layout = fixed_layout(self.g, left.number, tokens.layout.images)
        return Packed(left.x, left.size, layout, owners=left.owners, handed=left.handed)

    def slots(self, tokens: Packed) -> Slots:
        """Tokens of a static plan outside of blocks."""
        return Slots(
            number=tokens.layout.most, x=tokens.x, size=tokens.size, scores=tokens.scores,
            metric=None, alive=None, protected=self.vit.prefix, owners=tokens.owners,
            handed=tokens.handed,
        )  # fmt: skip

    def transformed(
        self, index: int, steps: tuple[Step, ...], tokens: Packed
    ) -> tuple[Packed, Name]:
        """Tokens behind a block and what is around it; [B] on how many of them its MLP runs."""
        step = self.plan.before.get(index)
        entered = self.entering(index, tokens)
        if step is None or not step.restores:
            ahead = self.plan.before.get(index + 1)
            return self.block(f"blocks.{index}", steps, entered, ahead=ahead)
        left, count = self.block(f"blocks.{index}", steps, entered, name=None)
        stages = (self.slots(stage) for stage in (tokens, entered, left))
        with self.g.scope(faces.folder(type(step))):
            behind = lowering.restore(self.g, step, *stages)
        x = self.g.op("Identity", behind.x, name="tokens")
        left = replace(left, x=x, size=behind.size, layout=tokens.layout, owners=tokens.owners)
        return left, count

    def block(
        self,
        path: str,
        steps: tuple[Step, ...],
        tokens: Packed,
        name: str | None = "tokens",
        ahead: Step | None = None,
    ) -> tuple[Packed, Name]:
        """One transformer block: attention, the plan's steps, MLP; `name` of what it gives.

        And [B] on how many tokens its MLP runs. `ahead` is a step before the next block.
        """
        g = self.g
        with g.scope("attn"):
            rows = self.layers.entered(path, self.normed(path, tokens))
            layout = tokens.layout
            at = self.at(path, tokens)
            weights, keys, values = attention.attend(
                self.layers, path, rows, tokens.size, layout, at,
                None if self.plan.fractional else self.vit.tokens,
            )  # fmt: skip
            metric = self.metric(path, tokens, keys, at) if METRIC in demands(steps) else None
        reduced = within = None
        if steps and not self.plan.static and not isinstance(layout, OneLayout):
            offered = dynamic.candidates(self.layers, steps, tokens, weights, values, metric)
            reduced = lowering.decide(g, steps, offered)
        with g.scope("attn"):
            update = attention.mix(self.layers, path, layout, weights, values, rows)
            x = g.op("Add", tokens.x, self.shaped(self.scaled(path, 1, update), layout))
        if reduced is not None:
            owned = dynamic.owned(self.layers, steps, tokens, reduced, x)
            x = packed.reduce_rows(g, reduced, x)
            where = self.moved(tokens, reduced)
            left = Packed(x, reduced.size, reduced.layout, positions=where, owners=owned)
        elif steps and isinstance(layout, OneLayout):
            tokens = replace(tokens, x=x, positions=self.placed(tokens))
            left = dynamic.of_one(self.layers, steps, tokens, weights, values, metric)
        else:
            asked = (*steps, *(() if ahead is None else (ahead,)))
            scores = attention.scores(self.layers, asked, layout, weights, values)
            tokens = replace(tokens, x=x, scores=scores)
            left, within = self.slots_left(early(steps), tokens, metric)
        if behind := late(steps):
            count = left.layout.count
            return self.ended(behind, replace(left, x=self.fed(path, left, None)), metric), count
        restoring = [step for step in steps if step.restores]
        if not restoring or within is None:
            return replace(left, x=self.fed(path, left, name)), left.layout.count
        left = replace(left, x=self.fed(path, left, None))
        return self.restored(restoring[0], within, tokens, left), left.layout.count

    def ended(self, steps: tuple[Step, ...], left: Packed, metric: Name | None) -> Packed:
        """What steps behind the MLP leave of a static plan's tokens."""
        made = lowering.reduce(self.g, steps, replace(self.slots(left), metric=metric))
        layout = fixed_layout(self.g, made.number, left.layout.images)
        x = self.g.op("Identity", made.x, name="tokens")
        return Packed(x, made.size, layout, owners=made.owners)

    def fed(self, path: str, left: Packed, name: str | None) -> Name:
        """Tokens and what the block's MLP makes of them, if it has not run beside attention."""
        if self.vit.parallel:
            return self.g.op("Identity", left.x, name=name)
        with self.g.scope("mlp"):
            hidden = self.rows(self.given(path, 2, left.x))
            update = self.scaled(path, 2, self.layers.mlp(path, hidden, self.vit.mlp))
            update = self.shaped(update, left.layout)
        return self.g.op("Add", left.x, update, name=name)

    def at(self, path: str, tokens: Packed) -> Bound:
        """What the places of tokens do to a block's attention."""
        return Bound()

    def moved(self, tokens: Packed, reduced: Reduced) -> Positions | None:
        """Where the packed tokens lie that steps leave."""
        return None

    def placed(self, tokens: Packed) -> Positions | None:
        """Where tokens in slots lie, as steps are given them."""
        return None

    def given(self, path: str, half: int, x: Name) -> Name:
        """What the first or second half of a block is given of its tokens."""
        leaf = "in_norm" if self.vit.parallel else f"norm{half}"
        return x if self.vit.post_norm else self.layers.norm(f"{path}.{leaf}", x)

    def scaled(self, path: str, half: int, update: Name) -> Name:
        """What the first or second half of a block adds, from rows [T, C] with its LayerScale."""
        return self.layers.norm(f"{path}.norm{half}", update) if self.vit.post_norm else update

    def restored(
        self, step: Step, within: tuple[Slots, Slots], tokens: Packed, left: Packed
    ) -> Packed:
        """Tokens behind a block whose step gives back what it took, see `steps.lowering`."""
        given, made = within
        with self.g.scope(faces.folder(type(step))):
            behind = lowering.restore(self.g, step, given, made, replace(made, x=left.x))
        x = self.g.op("Identity", behind.x, name="tokens")
        return replace(tokens, x=x, size=behind.size, handed=behind.handed)

    def shaped(self, rows: Name, layout: Layout) -> Name:
        """Rows [T, C], as [B, N, C] where the plan is static."""
        if not self.plan.static:
            return rows
        return self.g.reshape(rows, -1, layout.most, self.vit.width)

    def rows(self, x: Name) -> Name:
        """The inverse."""
        return self.g.reshape(x, -1, self.vit.width) if self.plan.static else x

    def slots_left(
        self, steps: tuple[Step, ...], tokens: Packed, metric: Name | None
    ) -> tuple[Packed, tuple[Slots, Slots] | None]:
        """What a static block's steps leave of its tokens [B, N, C]; before them, and behind.

        Without steps of any block's.
        """
        g, vit, layout = self.g, self.vit, tokens.layout
        if not steps:
            return replace(tokens, layout=self.named_count(layout), dropped=None), None
        found = Slots(
            number=layout.most, x=tokens.x, size=tokens.size,
            scores=tokens.scores, metric=metric,
            alive=None if self.plan.counted else layout.valid, protected=vit.prefix,
            owned=tokens.owned, handed=tokens.handed, owners=tokens.owners,
            positions=self.placed(tokens),
        )  # fmt: skip
        left = lowering.reduce(g, steps, found)
        living = left.alive if self.plan.counted else None
        layout = fixed_layout(g, left.number, layout.images, left.count, living)
        size = None if left.size is None else g.op("Identity", left.size, name="size")
        layout = self.named_count(layout)
        reduced = Packed(
            left.x, size, layout, left.owned, left.dropped, left.handed, left.positions,
            owners.within(g, left),
        )  # fmt: skip
        return reduced, (found, left)

    def named_count(self, layout: Layout) -> Layout:
        """A count that no step of the block makes gets the name under which others look for it."""
        if self.plan.keep is not None or isinstance(layout, OneLayout):
            return layout
        return replace(layout, count=self.g.op("Identity", layout.count, name="count"))

    def normed(self, path: str, tokens: Packed) -> Name:
        """The rows [T, C] that a block's attention sees."""
        return self.rows(self.given(path, 1, tokens.x))

    def metric(self, path: str, tokens: Packed, keys: Name, at: Bound) -> Name:
        """[B, N, D] unit vectors, whose products are the similarity of tokens."""
        vit, layout = self.vit, tokens.layout
        if not self.precision.protects or not at.alike:
            return layout.metric(self.layers.exact(keys), vit.maps, vit.key_width)
        rows = self.layers.mean_key(self.layers.attention(path), self.normed(path, tokens))
        return at.compared(self.g, layout.slots_of(rows, vit.key_width))


lower = partial(writing.lower, Lowering)
half_places = partial(writing.half_places, Lowering)

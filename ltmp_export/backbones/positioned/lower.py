"""ViTs whose attention knows where tokens lie, as an export-friendly graph; see `vit.lower`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ltmp_export.backbones import writing
from ltmp_export.backbones.positioned import biases, turns
from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.backbones.vit import lower as vit
from ltmp_export.backbones.vit.attention import Bound
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.backbones.vit.tokens import Packed
from ltmp_export.graph import positions as graph
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Reduced
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout
from ltmp_export.plan import positions
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision


@dataclass(frozen=True)
class PositionedLayers(VitLayers):
    """Layers of such a ViT."""

    vit: Positioned

    def projected(self, path: str, rows: Name, layout: Layout) -> tuple[Name, Name, Name]:
        """Normalised rows [T, C] of a block → queries, keys and values [B, H, N, D].

        Projections may be apart, with fewer heads of keys and values; or of queries and values
        alone there is a bias.
        """
        net = self.vit
        if not net.apart:
            return super().projected(path, rows, layout)
        keys = net.keys_of(int(path.rpartition(".")[2]))
        found = []
        for leaf, heads in (("q", net.heads), ("k", keys), ("v", keys)):
            part = self.linear(f"{path}.attn.{leaf}_proj", rows)
            with self.half(f"{path}.attn.{leaf}_proj"):
                found.append(_heads(layout, part, leaf, net, heads))
        return found[0], found[1], found[2]

    def bias(self, path: str) -> Name | None:
        """The bias of a linear layer, of queries, keys and values at once with none for keys."""
        own, g = super().bias(path), self.g
        start = path.removesuffix("qkv")
        if own is not None or start == path or f"{start}q_bias" not in g.weights:
            return own
        width = self.vit.heads * self.vit.head_width
        none = g.op("Expand", g.number(0.0), g.ints(width))
        return g.op("Concat", g.weight(f"{start}q_bias"), none, g.weight(f"{start}v_bias"), axis=0)


def _heads(layout: Layout, part: Name, name: str, net: Positioned, own: int) -> Name:
    """Packed rows [T, own * D] of queries, keys or values alone → [B, H, N, D].

    Where these have fewer heads of their own, several of the H take the same one.
    """
    g = layout.g
    pieces = g.reshape(part, -1, net.head_width)  # [T * own, D]
    first = g.op("Unsqueeze", g.op("Mul", layout.rows, g.index(own)), g.ints(1))
    heads = [head * own // net.heads for head in range(net.heads)]
    places = g.op("Add", first, g.column(heads))
    return layout.heads_alone(g.op("Gather", pieces, places, axis=0, name=name))


class _Turned(Bound):
    """Queries and keys are turned."""

    def __init__(self, made: turns.Turns, rotated: bool, alike: bool) -> None:
        self.made = made
        self.rotated = rotated
        self.alike = alike or not rotated

    def turned(self, layers: VitLayers, q: Name, k: Name) -> tuple[Name, Name, Name]:
        """Both in float32."""
        q, turned = (self.made.turned(layers.exact(x)) for x in (q, k))
        return q, turned, turned if self.rotated else k

    def compared(self, g: GraphBuilder, metric: Name) -> Name:
        """Turned, if keys are that tokens are compared by."""
        if not self.rotated:
            return metric
        heads = g.ints(self.made.heads_axis)
        return g.op("Squeeze", self.made.turned(g.op("Unsqueeze", metric, heads)), heads)


class _Biased(Bound):
    """Scores have a bias."""

    def __init__(self, bias: Name) -> None:
        self.bias = bias

    def biased(self, g: GraphBuilder, scores: Name) -> Name:
        """With it."""
        return g.op("Add", scores, self.bias)


class Lowering(vit.Lowering):
    """Writes one graph."""

    def __init__(
        self, net: Positioned, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        super().__init__(net, plan, g, precision, single)
        self.net = net
        self.layers = PositionedLayers(g, net, precision)
        merging = any(step.joins for steps in plan.blocks for step in steps)
        rotary = net.positions == positions.ROTARY
        self.summed = rotary and merging and plan.merged_position != positions.DESTINATION
        self.rotated = plan.metric_position == positions.ROTATED

    def at(self, path: str, tokens: Packed) -> Bound:
        """What the places of tokens do to a block's attention."""
        net, layout = self.net, tokens.layout
        where, block = tokens.positions, int(path.rpartition(".")[2])
        if where is None and layout.fixed != net.tokens:
            where = self.placed(tokens)
        if net.positions == positions.ROTARY:
            made = turns.write(self.g, net, block, layout, where)
            return _Turned(made, self.rotated, not net.own_turns)
        if net.positions == positions.RELATIVE:
            bias = biases.write(self.g, net, block, layout, where)
            return Bound() if bias is None else _Biased(bias)
        return Bound()

    def placed(self, tokens: Packed) -> Positions | None:
        """Where tokens lie, also where nothing has moved them."""
        if not self.net.positions or tokens.positions is not None:
            return tokens.positions
        began = graph.initial(self.g, self.net.grid, self.net.prefix, self.summed)
        images, static = tokens.layout.images, self.plan.static
        return graph.of_images(self.g, began, self.net.tokens, images, static)

    def moved(self, tokens: Packed, reduced: Reduced) -> Positions | None:
        """Where the packed tokens lie that steps leave."""
        where = self.placed(tokens)
        return None if where is None else graph.reduced(self.g, reduced, where)

    def scaled(self, path: str, half: int, update: Name) -> Name:
        """What a half of a block adds: normalised where the block does so here, or scaled."""
        if self.net.post_norm:
            return super().scaled(path, half, update)
        gamma = f"{path}.gamma_{half}"
        if gamma not in self.g.weights:
            return update
        return self.g.op("Mul", update, self.g.weight(gamma))


lower = partial(writing.lower, Lowering)
half_places = partial(writing.half_places, Lowering)

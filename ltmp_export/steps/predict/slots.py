"""Keeping the tokens that a small network prefers in ONNX, all images with the same slots.

Names written here before a block are stable: `score`, and `ranking`, the patch tokens by it.
"""

from __future__ import annotations

from ltmp_export.graph import selected
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.linear import linear
from ltmp_export.graph.slots import Slots
from ltmp_export.graph.sums import mean_of_slots
from ltmp_export.steps.predict.step import Predict


def write(g: GraphBuilder, step: Predict, tokens: Slots) -> Slots:
    """Keep those of the highest scores."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    score = _scores(g, step, g.slice(tokens.x, 1, protected), patches)  # [B, n]
    named = g.op("Pad", score, g.ints(0, protected, 0, 0), g.number(0.0), name="score")
    own = g.slice(named, 1, protected)
    _, ranking = g.ops("TopK", own, g.ints(patches), names=("ranked", "ranking"), axis=1)
    return selected.kept(g, tokens, g.slice(ranking, 1, 0, step.keep), step.keep)


def _scores(g: GraphBuilder, step: Predict, x: Name, patches: int) -> Name:
    """[B, n, C] → [B, n]."""
    weight, bias = (g.weight(f"{step.name}.in_conv.0.{part}") for part in ("weight", "bias"))
    normed = g.layer_norm(x, weight, bias, step.eps)
    hidden = g.activation("gelu", linear(g, f"{step.name}.in_conv.1", normed))
    half = g.weights[f"{step.name}.in_conv.1.weight"].shape[0] // 2
    own, other = g.slice(hidden, 2, 0, half), g.slice(hidden, 2, half)
    pooled = mean_of_slots(g, other, patches)  # [B, 1, C / 2]
    if step.floor:
        pooled = g.op("Add", pooled, g.number(step.floor))
    z = g.op("Concat", own, g.op("Expand", pooled, g.op("Shape", own)), axis=2)
    for layer in ("out_conv.0", "out_conv.2"):
        z = g.activation("gelu", linear(g, f"{step.name}.{layer}", z))
    log = g.op("LogSoftmax", linear(g, f"{step.name}.out_conv.4", z), axis=-1)
    return g.op("Squeeze", g.slice(log, 2, 0, 1), g.ints(2))

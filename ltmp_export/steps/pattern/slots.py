"""Keeping the patches that lie in a fixed pattern in ONNX, all images with the same slots."""

from __future__ import annotations

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.pattern.step import Pattern


def write(g: GraphBuilder, step: Pattern, tokens: Slots) -> Slots:
    """Rows that are numbers in the graph."""
    protected = tokens.protected
    rows = g.ints(*range(protected), *(protected + row for row in step.kept))

    def some(values: Name | None) -> Name | None:
        return None if values is None else g.op("Gather", values, rows, axis=1)

    return Slots(
        step.after(tokens.number, protected), g.op("Gather", tokens.x, rows, axis=1),
        some(tokens.size), {}, None, None, protected=protected, came=some(tokens.came),
    )  # fmt: skip

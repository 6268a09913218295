"""Tensors of a graph that have no name of their own, found by those that have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import onnx

from ltmp_export.graph.builder import Name


def before(model: onnx.ModelProto, name: Name, kind: str) -> Name | None:
    """What the nearest node of a kind is given, of those that a tensor is made by; or None."""
    made = {output: [node] for node in model.graph.node for output in node.output}
    found = _nearest(name, kind, lambda tensor: made.get(tensor, []), lambda node: node.input)
    return None if found is None else found.input[0]


def behind(model: onnx.ModelProto, name: Name, kind: str) -> Name | None:
    """What the nearest node of a kind gives, of those that a tensor goes into; or None."""
    takers: dict[Name, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            takers.setdefault(tensor, []).append(node)
    found = _nearest(name, kind, lambda tensor: takers.get(tensor, []), lambda node: node.output)
    return None if found is None else found.output[0]


def _nearest(
    name: Name,
    kind: str,
    nodes: Callable[[Name], Sequence[onnx.NodeProto]],
    further: Callable[[onnx.NodeProto], Sequence[Name]],
) -> onnx.NodeProto | None:
    """Breadth first from a tensor, by the nodes next to it and the tensors further on."""
    waiting, seen = deque([name]), {name}
    while waiting:
        for node in nodes(waiting.popleft()):
            if node.op_type == kind:
                return node
            waiting += [tensor for tensor in further(node) if tensor not in seen]
            seen.update(further(node))
    return None

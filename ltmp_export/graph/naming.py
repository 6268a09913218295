"""Names without nodes: what was written before it was named gets its name where it is made.

Tools that tidy graphs drop an `Identity`, and with it the name of what it gives.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import onnx


def named(
    nodes: Sequence[onnx.NodeProto], automatic: Container[str], given: Container[str]
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """The nodes, changed in place, without each `Identity` that only names what a node gives.

    Args:
        nodes: In their order.
        automatic: Names that nobody asked for. What bears another keeps it.
        given: What the graph gives: an `Identity` for each stays.

    Returns:
        The nodes that are left, and of each name that is gone the one in its place.
    """
    made = {output for node in nodes for output in node.output}
    renamed: dict[str, str] = {}
    left = []
    for node in nodes:
        names = node.op_type == "Identity" and node.output[0] not in given
        source = node.input[0] if names else ""
        if source in made and source in automatic and source not in renamed:
            renamed[source] = node.output[0]
        else:
            left.append(node)
    for node in left:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
        node.name = f"{node.output[0]}:node"
    return left, renamed

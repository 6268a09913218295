"""Which shapes of a graph depend on the numbers it computes, told from the graph alone.

A value is *data* if it was computed from an input's numbers; shapes of inputs are not. A graph has
a data-dependent shape where an operator's result has as many elements as data say, or where data
say how an operator shapes its result.
"""

from __future__ import annotations

import onnx

# Operators whose results have a shape that depends on the values of their input.
COUNTING = {"NonZero", "Compress", "Unique", "NonMaxSuppression", "Loop", "If", "Scan"}
# Of these inputs, by place, the values decide about the result's shape.
SHAPING = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
SHAPELESS = {"Shape", "Size"}  # what they give tells nothing of the numbers


def data_dependent(model: onnx.ModelProto) -> list[str]:
    """The nodes whose result has a shape that depends on data, in order."""
    data = {value.name for value in model.graph.input}
    found = []
    for node in model.graph.node:
        shaping = [node.input[i] for i in SHAPING.get(node.op_type, ()) if i < len(node.input)]
        tainted = data.intersection(node.input)
        if (node.op_type in COUNTING and tainted) or data.intersection(shaping):
            found.append(f"{node.op_type} {node.name}")
        if tainted and node.op_type not in SHAPELESS:
            data.update(node.output)
    return found


def inferred(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """Shapes of the inner tensors by ONNX's own inference; "?" where it does not know."""
    whole = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {}
    for value in [*whole.graph.value_info, *whole.graph.output]:
        axes = value.type.tensor_type.shape.dim
        found[value.name] = [a.dim_value if a.HasField("dim_value") else "?" for a in axes]
    return found

"""Multiply-accumulates counted from a graph alone, by the shapes of its products."""

from __future__ import annotations

import math

import onnx


def of(model: onnx.ModelProto) -> int:
    """Those of a graph for single images: convolutions and matrix products, but for plain sums.

    A product with a constant row of one number is a sum, or a mean (`GraphBuilder.row`).
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            inner = math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul" and not node.input[0].startswith("const/f32r"):
            inner = shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            turned = {a.name: a.i for a in node.attribute}
            inner = shapes[node.input[0]][0 if turned.get("transA") else 1]
        else:
            continue
        outs = shapes[node.output[0]]
        assert inner, node.name
        assert all(outs), node.name
        total += inner * math.prod(outs)
    return total

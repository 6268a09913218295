"""Multiply-accumulates counted from a graph alone, by the shapes of its products."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray


def of(model: onnx.ModelProto) -> int:
    """Those of a graph for single images: convolutions and matrix products, but for plain sums.

    A product with a constant row of one number is a sum, or a mean (`GraphBuilder.row`), also where
    the row is expanded to stand for each head.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return _total(inferred, shapes | _stored(inferred))


def executed(model: onnx.ModelProto, image: NDArray[np.float32]) -> int:
    """The same as onnxruntime runs it on an image [1, channels, height, width]."""
    graph = onnx.ModelProto.FromString(model.SerializeToString()).graph
    stored = _stored(graph)
    names = {name for node in graph.node if node.op_type in _PRODUCTS
             for name in (*node.input, *node.output)} - stored.keys()  # fmt: skip
    known = {value.name for value in (*graph.input, *graph.output)}
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - known))
    wanted = sorted(names - {value.name for value in graph.input})
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dict(zip(wanted, session.run(wanted, {"images": image}), strict=True))
    shapes = {name: list(array.shape) for name, array in found.items()}
    return _total(graph, shapes | stored | {"images": list(image.shape)})


_PRODUCTS = ("Conv", "MatMul", "Gemm")


def _stored(graph: onnx.GraphProto) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _total(graph: onnx.GraphProto, shapes: Mapping[str, list[int]]) -> int:
    total = 0
    rows = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Expand" and node.input[0].startswith("const/queries")
    }
    for node in graph.node:
        if node.op_type == "Conv":
            inner = math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul" and not (
            node.input[0] in rows or node.input[0].startswith("const/f32r")
        ):
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

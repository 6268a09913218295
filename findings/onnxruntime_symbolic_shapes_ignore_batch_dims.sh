#!/usr/bin/env bash
# onnxruntime 1.32.0, SymbolicShapeInference: of a GatherND with batch_dims it takes the shape wrongly.
#
# GatherND of rows [batch, 5, 4] at places [batch, 3, 1] with batch_dims = 1 gives [batch, 3, 4]: so
# says onnx's own shape inference, and the runtime. The symbolic inference that quant_pre_process
# runs first does not look at batch_dims, and takes it for [batch, 3, 5, 4]. A product of it with a
# matrix of another batch then stops the inference with a bare AssertionError; where nothing stops
# it, the wrong shape is written into the file.
#
# Exits with 1 if the shape is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

inputs = [
    helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", 5, 4]),
    helper.make_tensor_value_info("places", TensorProto.INT64, ["batch", 3, 1]),
]
nodes = [
    helper.make_node("GatherND", ["rows", "places"], ["taken"], batch_dims=1),
    helper.make_node("Relu", ["taken"], ["y"]),
]
outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
graph = helper.make_graph(nodes, "rows", inputs, outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def shape(made):
    (found,) = [value for value in made.graph.value_info if value.name == "taken"]
    return [axis.dim_param or axis.dim_value for axis in found.type.tensor_type.shape.dim]


print("onnxruntime", ort.__version__)
given = {"rows": np.zeros((2, 5, 4), np.float32), "places": np.zeros((2, 3, 1), np.int64)}
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("the runtime gives          ", list(session.run(None, given)[0].shape), "of 2")
print("onnx infers                ", shape(onnx.shape_inference.infer_shapes(model)))
found = shape(SymbolicShapeInference.infer_shapes(model))
print("symbolic inference says    ", found)
if found == ["batch", 3, 4]:
    raise SystemExit("changed: the shape is right")
PY

#!/usr/bin/env bash
# OpenVINO 2026.4.1: of what Compress without an axis gives, the number of axes is not known.
#
# ONNX says that without an axis the input is flattened first, so the output has one axis, and
# onnx's shape inference says so. OpenVINO reads the operator and gives its output an unknown rank.
# The graph that follows is then refused where an operator counts axes from the end: an ArgMax over
# axis -1 of rows that were gathered by those numbers does not convert, with a message about TopK.
# With the input reshaped to one axis and axis=0 the same graph is read, and computes the same.
#
# Exits with 1 if the first graph is read, or the second is not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 openvino==2026.4.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper


def model(axis):
    """Rows [T, 4] chosen by a mask [B, 4] of their numbers [B, 4] -> each one's largest column."""
    stored = {"one_axis": np.array([-1])}
    nodes = [helper.make_node("Reshape", ["mask", "one_axis"], ["flat_mask"])]
    if axis is None:
        nodes.append(helper.make_node("Compress", ["numbers", "flat_mask"], ["chosen"]))
    else:
        nodes += [
            helper.make_node("Reshape", ["numbers", "one_axis"], ["flat"]),
            helper.make_node("Compress", ["flat", "flat_mask"], ["chosen"], axis=axis),
        ]
    nodes += [
        helper.make_node("Gather", ["rows", "chosen"], ["gathered"], axis=0),
        helper.make_node("ArgMax", ["gathered"], ["y"], axis=-1, keepdims=0),
    ]
    ins = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["T", 4]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["B", 4]),
        helper.make_tensor_value_info("numbers", TensorProto.INT64, ["B", 4]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.INT64, [None])
    arrays = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "chosen", ins, [out], arrays)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    known = {i.name: i for i in onnx.shape_inference.infer_shapes(made).graph.value_info}
    assert len(known["chosen"].type.tensor_type.shape.dim) == 1
    return made.SerializeToString()


print("openvino", openvino.__version__)
core = openvino.Core()
try:
    core.read_model(model(None))
except RuntimeError as err:
    told = [line for line in str(err).splitlines() if "ArgMax" in line]
    print("without an axis:", told[0] if told else str(err).splitlines()[-1])
else:
    raise SystemExit("changed: Compress without an axis is followed")
rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], bool)
given = {"rows": rows, "mask": mask, "numbers": np.arange(8).reshape(2, 4)}
found = core.compile_model(core.read_model(model(0)), "CPU")(given)[0]
print("with axis=0:", found)
if not np.array_equal(found, rows[mask.reshape(-1)].argmax(1)):
    raise SystemExit("changed: with an axis the result is another one")
PY

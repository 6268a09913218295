#!/usr/bin/env bash
# onnxoptimizer 0.4.2: a tensor keeps its name and gets another shape.
#
# Of a ReduceSum without its axis, "count" [2], and an Unsqueeze behind it one ReduceSum is made that
# keeps the axis: right as long as nobody looks. But the result is called "count", which is now
# [2, 1]. Whoever reads inner tensors by name, to debug or to compare, finds one of that name that is
# none: the name of what is still there, "column", is what is lost. onnxsim, which runs the same
# passes, does so, too.
#
# Exits with 1 if "count" has the shape it had, or is gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 onnxruntime==1.32.0 onnxoptimizer==0.4.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
start = numpy_helper.from_array(np.array(0, np.int64), "start")
nodes = [
    helper.make_node("ReduceSum", ["x", "axis"], ["count"], keepdims=0),
    helper.make_node("Unsqueeze", ["count", "axis"], ["column"]),
    helper.make_node("CumSum", ["column", "start"], ["y"]),
]
ends = [
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1])],
]
graph = helper.make_graph(nodes, "sums", *ends, [axis, start])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)


def inner(made):
    """The shape of the tensor called count, or None."""
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    if not any("count" in node.output for node in copy.graph.node):
        return None
    copy.graph.output.append(helper.make_tensor_value_info("count", TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(copy.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(["count"], {"x": np.ones((2, 3), np.float32)})[0].shape)


print("onnxoptimizer", version("onnxoptimizer"))
before, after = inner(model), inner(onnxoptimizer.optimize(model))
print("count before:", before)
print("count after: ", after)
if after in (before, None):
    raise SystemExit("changed: count has the shape it had, or is gone")
PY

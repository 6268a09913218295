#!/usr/bin/env bash
# onnxruntime 1.32.0: a Reshape whose shape is stated in full is rewritten to one that infers a
# length (-1), and then refuses an empty batch.
#
# The graph lays the pixels of pictures [batch, height, width, 3] in one row: Reshape to
# [0, height * width, 3], where 0 keeps the batch and the product is computed from Shape. onnx's
# reference evaluator and a session without optimisations give [0, 12, 3] for no picture of 3 x 4
# pixels. With basic optimisations the computed length becomes -1, which cannot be inferred from
# nothing: the run fails. Batches of one or more are not affected. The same shape as a sum of vectors
# ([0, height * width, 0] + [0, 0, 3]) is left alone.
#
# Exits with 1 if the empty batch runs, or if something else of this is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

NODES = {
    "a Concat": [helper.make_node("Concat", ["zero", "count", "three"], ["shape"], axis=0)],
    "a sum": [
        helper.make_node("Mul", ["second", "count"], ["middle"]),
        helper.make_node("Add", ["middle", "last"], ["shape"]),
    ],
}
CONSTANTS = {
    "one": 1, "two": 2, "zero": [0], "three": [3], "second": [0, 1, 0], "last": [0, 0, 3],
}  # fmt: skip


def model(way):
    """[batch, height, width, 3] -> [batch, height * width, 3]."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sides"]),
        helper.make_node("Gather", ["sides", "one"], ["height"]),
        helper.make_node("Gather", ["sides", "two"], ["width"]),
        helper.make_node("Mul", ["height", "width"], ["product"]),
        helper.make_node("Unsqueeze", ["product", "zero"], ["count"]),
        *NODES[way],
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "height", "width", 3])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "pixels", 3])
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in CONSTANTS.items()
        if any(name in node.input for node in nodes)
    ]
    graph = helper.make_graph(nodes, "row", [given], [found], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def ran(made, level, pictures):
    """The shape that comes out, or what is said."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])
    try:
        return session.run(None, {"x": pictures})[0].shape
    except Exception as error:
        return str(error)


LEVELS = ort.GraphOptimizationLevel
print("onnxruntime", ort.__version__)
none, two = (np.zeros((count, 3, 4, 3), np.float32) for count in (0, 2))
changed = []
for way in NODES:
    made = model(way)
    if ReferenceEvaluator(made).run(None, {"x": none})[0].shape != (0, 12, 3):
        changed.append("onnx's reference evaluator")
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC):
        empty, full = ran(made, level, none), ran(made, level, two)
        print(f"{way}, {level.name}: no picture {empty}; two pictures {full}")
        lost = way == "a Concat" and level == LEVELS.ORT_ENABLE_BASIC
        right = "{0,-1,3}" in str(empty) if lost else empty == (0, 12, 3)
        if not right or full != (2, 12, 3):
            changed.append(f"{way} at {level.name}")
if changed:
    raise SystemExit(f"changed: {', '.join(changed)}")
PY

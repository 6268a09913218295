#!/usr/bin/env bash
# onnxruntime 1.32.0: nodes whose results reach no output are kept by every optimisation level, and run.
#
# The graph multiplies its input by itself and gives that; a second chain (MatMul, ReduceSum, Exp)
# hangs on the same input and ends nowhere. onnx's checker takes it. With all optimisations the
# session keeps the chain, and its profile shows it computed in every run, as where optimisations are
# off, also when run() is asked for the one output by name. Of a chain that hangs on constants alone
# nothing is left: folding takes it. Tools that write graphs have to leave out themselves what only a
# person or a debugger would read.
#
# Exits with 1 if the nodes are no longer kept, or no longer run.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import collections
import json

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIDE = 256


def model():
    """[256, 256] -> its square; and what nobody reads, of the input and of a constant."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["y"], name="read"),
        helper.make_node("MatMul", ["x", "x"], ["product"], name="unread_product"),
        helper.make_node("ReduceSum", ["product"], ["total"], name="unread_sum", keepdims=0),
        helper.make_node("Exp", ["total"], ["nowhere"], name="unread_end"),
        helper.make_node("Exp", ["one"], ["nowhere_else"], name="unread_constant"),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [SIDE, SIDE])] for n in "xy"]
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    graph = helper.make_graph(nodes, "unread", *ends, [one])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def seen(level):
    """Names of the nodes that a session keeps, and how often each ran in three runs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = f"{level.name}.onnx"
    options.enable_profiling = True
    options.log_severity_level = 3
    session = ort.InferenceSession(model(), options, ["CPUExecutionProvider"])
    x = np.full((SIDE, SIDE), 0.01, np.float32)
    for _ in range(3):
        session.run(["y"], {"x": x})
    with open(session.end_profiling()) as file:
        events = json.load(file)
    ran = collections.Counter(
        event["name"].removesuffix("_kernel_time")
        for event in events
        if event["name"].endswith("_kernel_time")
    )
    kept = [node.name for node in onnx.load(f"{level.name}.onnx").graph.node]
    print(f"{level.name}: keeps {' '.join(kept)}; ran {dict(ran)}")
    return kept, ran


LEVELS = ort.GraphOptimizationLevel
print("onnxruntime", ort.__version__)
unread = {"unread_product", "unread_sum", "unread_end"}
for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
    kept, ran = seen(level)
    if not unread <= set(kept):
        raise SystemExit("changed: nodes that nobody reads are left out")
    if any(ran[name] != 3 for name in unread):
        raise SystemExit("changed: nodes that nobody reads do not run")
if "unread_constant" in kept:
    raise SystemExit("changed: constants that nobody reads are not folded")
PY

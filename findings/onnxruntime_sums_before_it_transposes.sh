#!/usr/bin/env bash
# onnxruntime 1.32.0: a sum over the last axis of a transposed tensor becomes a sum over another axis.
#
# Written is Transpose (perm 0, 2, 1), then ReduceSum over the last axis, of rows that are each added
# up by themselves. With the optimisations of any level (the default is all) the session runs
# ReduceSum over axis 1 first, and transposes what is left. The same numbers are added, but another
# kernel adds them: one that, on the processors seen (AVX2), takes another order for a batch than for
# one image, so that an image alone and the same image in a batch differ in their last bits, which
# they do not where optimisations are off. A layer behind it that rounds to integers makes a visible
# difference of that. A matrix product with a row of ones is left where it stands.
#
# Exits with 1 if the exchange is no longer made (bits are printed, not judged).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

PATCHES, TARGETS = 64, 16


def model():
    """[batch, 64, 16] -> [batch, 16, 1], the sums of columns."""
    nodes = [
        helper.make_node("Relu", ["x"], ["mask"]),
        helper.make_node("Transpose", ["mask"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("ReduceSum", ["columns", "last"], ["sums"], keepdims=1),
    ]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [-1])
    shapes = {"x": ["batch", PATCHES, TARGETS], "sums": ["batch", TARGETS, 1]}
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n])] for n in shapes]
    graph = helper.make_graph(nodes, "sums", *ends, [last])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session(level, kept):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = kept
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model().SerializeToString(), options, ["CPUExecutionProvider"])


def seen(level):
    """The operators as they are run, and whether an image alone has the bits it has in a batch."""
    kept = f"{level.name}.onnx"
    run = session(level, kept)
    x = np.random.default_rng(0).standard_normal((3, PATCHES, TARGETS)).astype(np.float32)
    batch = run.run(None, {"x": x})[0]
    alone = np.concatenate([run.run(None, {"x": x[i : i + 1]})[0] for i in range(3)])
    kinds = [node.op_type for node in onnx.load(kept).graph.node]
    print(f"{level.name}: {' '.join(kinds)}; alone as in a batch: {np.array_equal(batch, alone)}")
    return [kind for kind in kinds if kind != "Relu"]


levels = ort.GraphOptimizationLevel
written = seen(levels.ORT_DISABLE_ALL)
run = [seen(level) for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL)]
first = written == ["Transpose", "ReduceSum"] and all(kinds[0] == "ReduceSum" for kinds in run)
raise SystemExit(0 if first else 1)
PY

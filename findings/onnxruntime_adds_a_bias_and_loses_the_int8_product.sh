#!/usr/bin/env bash
# onnxruntime 1.32.0, CPU: a bias behind a MatMul between DequantizeLinear keeps it in float32.
#
# Rows are rounded by QuantizeLinear and DequantizeLinear, the weight is int8 with a scale for each
# column behind a DequantizeLinear of its own: the form that documents of int8 ask for. Without a
# bias the session joins all of it to one MatMulIntegerToFloat. With an Add of a constant bias behind
# the MatMul, as every linear layer has one, MatMul and Add are made a Gemm first, which is joined
# with nothing: both DequantizeLinear run, and the product is a float32 one. So a file that was
# made int8 computes its layers in float32, and takes longer than before.
#
# Exits with 1 if the product with a bias is computed from integers, or that without is not.
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
from onnx import TensorProto, helper, numpy_helper

ROWS, WIDTH = 32, 64


def kept(bias):
    """The operators that a session keeps of a rounded product, with a bias behind it or without."""
    rng = np.random.default_rng(0)
    stored = {
        "step": np.array(0.05, np.float32),
        "zero": np.array(0, np.int8),
        "weight": rng.integers(-60, 61, (WIDTH, WIDTH), dtype=np.int8),
        "steps": rng.uniform(0.01, 0.02, WIDTH).astype(np.float32),
        "bias": rng.normal(size=WIDTH).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["rows"]),
        helper.make_node("DequantizeLinear", ["weight", "steps"], ["columns"], axis=1),
        helper.make_node("MatMul", ["rows", "columns"], ["product" if bias else "y"]),
    ]
    if bias:
        nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    else:
        del stored["bias"]
    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [ROWS, WIDTH])] for n in ("x", "y")
    ]
    arrays = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "linear", *ends, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimised.onnx"
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load("optimised.onnx").graph.node]
    print(f"{'with' if bias else 'without'} a bias: {' '.join(found)}")
    return found


print("onnxruntime", ort.__version__)
if "MatMulIntegerToFloat" not in kept(bias=False):
    raise SystemExit("changed: without a bias the product is not computed from integers")
found = kept(bias=True)
if "Gemm" not in found or found.count("DequantizeLinear") != 2:
    raise SystemExit("changed: with a bias the product is computed from integers")
PY

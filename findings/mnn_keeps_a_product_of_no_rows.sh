#!/usr/bin/env bash
# MNN 3.6.1: a Gemm with transA and C, once of no rows, gives other numbers in all later runs.
#
# Gemm(A, B, C, transA=1) of A [k, 10] and B [k, 128], where k depends on the data, is right for any
# k. In a run with k = 0 it gives C, which is right, too. From then on the same loaded model gives
# wrong numbers for every k, by as much as the product itself, and says nothing: what it gives
# depends on what it was given before. A new load of the model is right again. With a row of zeros
# behind A and B, so that no product is ever empty, all runs are right.
#
# Exits with 1 if the runs behind an empty one are right, or those with the rows of zeros are not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.0 onnx==1.23.2 MNN==3.6.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import subprocess
import sys

import MNN
import MNN.expr
import MNN.nn
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def load(padded):
    """Columns of rows [16, 1 + 10 + 128]: where the first is above 0, the others' product."""
    c = np.ones((10, 128), np.float32)
    arrays = {"parts": np.array([1, 10, 128]), "flat": np.array([-1]), "zero": np.float32(0)}
    arrays |= {"C": c, "below": np.array([0, 0, 1, 0])}
    node = helper.make_node
    nodes = [
        node("Split", ["rows", "parts"], ["mark", "all_a", "all_b"], axis=1),
        node("Reshape", ["mark", "flat"], ["marks"]),
        node("Greater", ["marks", "zero"], ["taken"]),
        node("Compress", ["all_a", "taken"], ["A"], axis=0),
        node("Compress", ["all_b", "taken"], ["B"], axis=0),
        node("Pad", ["A", "below"], ["A0"]),
        node("Pad", ["B", "below"], ["B0"]),
        node("Gemm", ["A0", "B0", "C"] if padded else ["A", "B", "C"], ["y"], transA=1),
    ]
    if not padded:
        nodes = [one for one in nodes if one.op_type != "Pad"]
        del arrays["below"]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [16, 139])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [10, 128])
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "product", [rows], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "m.onnx")
    asked = ["-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "x"]
    subprocess.run([sys.executable, "-c", CONVERT, *asked], check=True, capture_output=True)
    return MNN.nn.load_module_from_file("m.mnn", ["rows"], ["y"])


def apart(module, count):
    """How far the product of so many rows is from numpy's."""
    rows = np.random.default_rng(count).standard_normal((16, 139)).astype(np.float32)
    rows[:, 0] = np.where(np.arange(16) < count, 1, -1)
    given = MNN.expr.placeholder([16, 139], MNN.expr.NCHW)
    given.write(rows)
    found = MNN.expr.convert(module.forward([given])[0], MNN.expr.NCHW).read()
    wanted = rows[:count, 1:11].T @ rows[:count, 11:] + 1
    return float(np.abs(np.array(found).reshape(10, 128) - wanted).max())


print("MNN", MNN.version())
counts = (3, 5, 0, 3, 5)
plain = load(padded=False)
found = [apart(plain, count) for count in counts]
print("rows", counts, "off by", found)
if max(found[:3]) > 1e-4 or min(found[3:]) < 0.1:
    raise SystemExit("changed: the runs behind an empty product are right, or others are not")
never_empty = load(padded=True)
found = [apart(never_empty, count) for count in counts]
print("with rows of zeros", counts, "off by", found)
if max(found) > 1e-4:
    raise SystemExit("changed: with rows of zeros it is not right")
PY

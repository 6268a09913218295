"""Forms of operators that files take because some runtime lacks one, or takes it wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from tests.makers import examples


@pytest.fixture(scope="module", params=["dynamic", "budget", "m"])
def model(
    request: pytest.FixtureRequest, shallow_digits: Callable[[str], Checkpoint]
) -> onnx.ModelProto:
    """A file for any batch."""
    made = shallow_digits("m" if request.param == "m" else "ltmp")
    if request.param == "budget":
        made = replace(made, plan=made.plan.within(examples.KEEP))
    return to_onnx(made, opset=17)


def given(model: onnx.ModelProto, kind: str) -> list[list[tuple[int, ...]]]:
    """The shapes of what each node of a kind is given, of two images."""
    nodes = [node for node in model.graph.node if node.op_type == kind]
    if not nodes:
        return []
    made = {output for node in model.graph.node for output in node.output}
    names = sorted(made.intersection(name for node in nodes for name in node.input))
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    run = ort.InferenceSession(tapped.SerializeToString(), options).run
    found = run(names, {"images": inputs.embedded_digits().select(2).pixels.astype(np.float32)})
    shapes = {name: value.shape for name, value in zip(names, found, strict=True)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [[shapes[name] for name in node.input] for node in nodes]


def test_no_product_broadcasts_over_heads_alone(model: onnx.ModelProto) -> None:
    """[B, 1, 1, N] by [B, H, N, N]: MNN 3.6.1 takes rows of other images, tract refuses it."""
    by_head = [pair for pair in given(model, "MatMul") if {len(shape) for shape in pair} == {4}]
    assert by_head
    for one, other in by_head:
        assert one[:2] == other[:2]


def test_rows_are_placed_by_a_column(model: onnx.ModelProto) -> None:
    """MNN 3.6.1 takes places [B, K, 1] for others. Static files place none."""
    for _, places, rows in given(model, "ScatterND"):
        assert places == (rows[0], 1)


def test_what_others_lack(model: onnx.ModelProto) -> None:
    """TVM 0.27 and onnx2torch 1.5 have no LpNormalization; of a Range TVM knows no length."""
    assert not {"LpNormalization", "Range"} & {node.op_type for node in model.graph.node}

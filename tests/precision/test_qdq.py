"""int8 between QuantizeLinear and DequantizeLinear, as other runtimes look for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.model_file.model import to_onnx
from ltmp_export.precision.formats import INT8, QDQ
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from tests.makers.lower_precision import in_batches, prepared, same_class, weights_of

Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def pixels(digit_images: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = digit_images.numpy()
    return found


def test_both_sides_are_int8_around_0(digits: Digits, pixels: NDArray[np.float32]) -> None:
    """What TensorRT and QNN look for: only products read what is dequantised."""
    checkpoint, precision = prepared(digits("ltmp"), pixels[::6], "qdq")
    model = to_onnx(checkpoint, opset=17, precision=precision)
    stored = weights_of(model)
    makers = {out: node for node in model.graph.node for out in node.output}
    assert "MatMulInteger" not in {node.op_type for node in model.graph.node}
    products = 0
    for node in (node for node in model.graph.node if node.op_type == "MatMul"):
        weight, rows = makers.get(node.input[1]), makers.get(node.input[0])
        if weight is None or rows is None or weight.op_type != "DequantizeLinear":
            continue
        rounded = makers[rows.input[0]]
        assert (rows.op_type, rounded.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert list(rows.input[1:]) == list(rounded.input[1:])
        assert stored[rows.input[2]] == 0
        assert stored[rows.input[2]].dtype == stored[weight.input[0]].dtype == np.int8
        products += 1
    assert products == sum(given.terms for given in precision.layers.values())


@pytest.mark.parametrize("opset", [16, opsets.newest(opsets.Form(INT8, int8_form=QDQ))])
def test_opsets(digits: Digits, pixels: NDArray[np.float32], opset: int) -> None:
    checkpoint, precision = prepared(digits("ltmp"), pixels[::6], "qdq")
    dense = in_batches(to_onnx(digits("ltmp"), opset=17), pixels[:14], 7)
    for batch_size in (None, 1):
        model = to_onnx(checkpoint, opset=opset, batch_size=batch_size, precision=precision)
        found = in_batches(model, pixels[:14], batch_size or 7)
        assert same_class(found, dense) == 14
        if batch_size is None:
            assert Session(model, threads=1).run(pixels[:0])[0].shape == (0, 10)

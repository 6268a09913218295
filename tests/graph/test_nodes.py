"""How many nodes a block has once onnxruntime has optimised the graph: each costs about 1 µs.

That is nothing in a large model and much in a small one. Where a graph gets leaner, lower the
number; where one must grow, its commit says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.precision.formats import FP32, INT8, Precision
from tests.makers.shallow import shallow

# At most so many nodes a block, by family, batch size of the file (None: any) and its numbers.
# Counted with onnxruntime 1.32; versions fuse differently, so each has two to spare.
MOST: dict[tuple[str, int | None, str], int] = {
    ("ltmp", None, FP32): 119,
    ("ltmp", 1, FP32): 59,
    ("ltmp", 1, INT8): 63,
}
DEPTH = 3


def optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The nodes that onnxruntime runs on a CPU, by operator."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file fits this processor alone
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return Counter(node.op_type for node in nodes)


def written(checkpoint: Checkpoint, batch_size: int | None, numbers: str) -> onnx.ModelProto:
    precision = Precision(numbers)
    if numbers == INT8:
        images = inputs.embedded_digits().select(2)
        checkpoint, precision = quantise.prepare(checkpoint, images, precision)
    return to_onnx(checkpoint, opset=17, batch_size=batch_size, precision=precision)


@pytest.mark.parametrize(("family", "batch_size", "numbers"), MOST, ids=str)
def test_nodes_of_a_block(
    family: str,
    batch_size: int | None,
    numbers: str,
    digits: Callable[[str], Checkpoint],
    tmp_path: Path,
) -> None:
    """What one block more adds: the first and the last are not as those between."""
    fewer, more = (
        optimised(written(shallow(digits(family), depth), batch_size, numbers), tmp_path)
        for depth in (DEPTH, DEPTH + 1)
    )
    assert more.total() - fewer.total() <= MOST[family, batch_size, numbers], dict(more - fewer)

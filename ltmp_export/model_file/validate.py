"""What a finished file must look like."""

from __future__ import annotations

import onnx

from ltmp_export.errors import ExportError
from ltmp_export.graph import detached


def validate(model: onnx.ModelProto, opset: int) -> None:
    """What a finished file must look like (METHOD §3): opset, domain, checker, shape inference.

    Raises:
        ExportError: It does not.
    """
    declared = {entry.domain: entry.version for entry in model.opset_import}
    if declared != {"": opset}:
        raise ExportError(f"the graph declares opsets {declared}; expected {{'': {opset}}}")
    foreign = sorted({node.domain for node in model.graph.node} - {""})
    if foreign:
        raise ExportError(f"the graph uses operators of domains {foreign}; expected none")
    try:
        onnx.checker.check_model(detached.without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise ExportError(f"the ONNX checker refuses the graph: {err}") from err

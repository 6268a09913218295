"""Models written for a runtime, see `graph.forms`."""

from __future__ import annotations

import onnx

from ltmp_export.graph import forms
from ltmp_export.model_file.validate import validate

KEY = "ltmp.for"  # of the metadata


def write_for(model: onnx.ModelProto, target: str | None, opset: int) -> None:
    """Give a model the forms that a runtime needs, and say so in its metadata.

    Args:
        model: It, changed in place.
        target: One of `graph.targets.TARGETS`; None changes nothing.
        opset: That it declares.

    Raises:
        ExportError: The graph is not what it must be.
    """
    if target is None:
        return
    forms.rewrite(model, target)
    model.metadata_props.add(key=KEY, value=target)
    validate(model, opset)

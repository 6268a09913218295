"""Models written for a runtime, see `graph.forms`."""

from __future__ import annotations

import onnx

from ltmp_export.graph import forms
from ltmp_export.graph.targets import ANY
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


def doubts(model: onnx.ModelProto, runtime: str) -> tuple[str, ...]:
    """A line where a model is not in the forms that a runtime needs, or none.

    Args:
        model: An exported one.
        runtime: What is to run it.
    """
    written = next((one.value for one in model.metadata_props if one.key == KEY), None)
    if written in (runtime, ANY) or not (lacks := forms.lacking(model, runtime)):
        return ()
    return (
        f"the file is not in the forms that {runtime} needs ({', '.join(lacks)}): export "
        f"it with --for {runtime}",
    )

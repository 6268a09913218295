"""What a graph takes and gives, asked of any model, and inner tensors made outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from ltmp_export.errors import InputError
from ltmp_export.graph import told


def missing_tensors(model: onnx.ModelProto, names: Iterable[str]) -> list[str]:
    """The names that no node of the graph gives, nor can be told from what one gives."""
    produced = {output for node in model.graph.node for output in node.output}
    lacking = [name for name in names if name not in produced]
    single = bool(_inputs(model)) and fixed_batch(model) == 1
    return [name for name in lacking if told.source(name, model, single) not in produced]


def count_taps(depth: int) -> dict[str, int]:
    """The token count of each block, [B] int64, as `runtimes.recording` takes them."""
    return {f"block_{block:02d}/count": int(TensorProto.INT64) for block in range(depth)}


def require_images(model: onnx.ModelProto, name: str, input_size: Sequence[int]) -> None:
    """Check that any model takes [batch, *input_size] and gives [batch, classes].

    Raises:
        InputError: It has other inputs or outputs, or fixed other sizes.
    """
    found = [_sizes(value) for value in _inputs(model)]
    fits = len(found) == 1 and len(found[0]) == 1 + len(input_size)
    fits = fits and all(a in (None, b) for a, b in zip(found[0][1:], input_size, strict=True))
    if not fits or len(_sizes(model.graph.output[0])) != 2:
        raise InputError(
            f"{name} takes {found} and gives {_sizes(model.graph.output[0])}; expected one input "
            f"[batch, {', '.join(map(str, input_size))}], and [batch, classes]"
        )


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The only batch size a model takes, or None if it takes any."""
    sizes = _sizes(_inputs(model)[0])
    return sizes[0] if sizes else None


def require_batches(model: onnx.ModelProto, name: str, batch_sizes: Sequence[int]) -> None:
    """Check that a model takes batches of these sizes.

    Raises:
        InputError: It takes another size only.
    """
    fixed = fixed_batch(model)
    if fixed is not None and (others := [size for size in batch_sizes if size != fixed]):
        raise InputError(
            f"{name} takes batches of {fixed} only, asked for {', '.join(map(str, others))}; give "
            f"--batch-size {fixed}, or export it without --batch-size for batches of any size"
        )


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph that are not weights."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """The axes of an input or output; None for a free one."""
    axes = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in axes]


def tapped(
    model: onnx.ModelProto, tensors: Mapping[str, int], shaped: bool = False
) -> onnx.ModelProto:
    """A copy of the model that also outputs named inner tensors; the file is not touched.

    Args:
        model: The model.
        tensors: Element type (`onnx.TensorProto`) by tensor name; none may be missing.
        shaped: Whether to say of which shapes they are, as far as the graph tells: OpenVINO takes
            an output of no shape to be of unknown rank.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    produced = {output for node in model.graph.node for output in node.output}
    told.tell(copy, [name for name in tensors if name not in produced])
    present = {entry.name for entry in copy.graph.output}
    for name, kind in tensors.items():
        if name not in present:
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    if shaped:
        inferred = onnx.shape_inference.infer_shapes(copy).graph.output
        for output, known in zip(copy.graph.output, inferred, strict=True):
            output.CopyFrom(known)
    return copy

"""A model in memory, taken apart: the graph is a few hundred kB, its weights may be gigabytes.

In memory a model is one `onnx.ModelProto` that holds its weights, however large: protobuf minds
only when it is serialised, which ends at 2 GB and copies all of them. So it is taken apart where it
leaves the process:

    for onnxruntime  the graph as bytes, its large weights as arrays             `detach`
    for the checker  the graph, its large weights as inputs of their shape       `without_weights`
    for a file       the graph, beyond 2 GB its large weights in a second file    `rewritten`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError, Message
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.errors import ExportError

INLINE_LIMIT = 2**31 - 2**27  # bytes of weights; a message ends at 2**31, nodes take some of it
LARGE = 2**16  # bytes from which a tensor leaves the graph; thresholds and indices never do
IN_MEMORY = "in the memory of this process"  # where a file's name is expected

_BITS = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 8),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
    "COMPLEX128": 128,
}


def element_bits(data_type: int) -> int | None:
    """Bits of an element of this `TensorProto.DataType`, None for strings and unknown types."""
    kind = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
    name = kind.get(data_type, "")
    return _BITS.get(name, 8 if name.startswith("FLOAT8") else None)


def nbytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's elements, by its shape; 0 for strings. Copies nothing."""
    bits = math.prod(map(int, tensor.dims)) * (element_bits(tensor.data_type) or 0)
    return (bits + 7) // 8


def is_large(model: onnx.ModelProto, beside: Container[str] = ()) -> bool:
    """Whether the weights that a model holds, or has `beside` it, are too many for one file."""
    held = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_location != TensorProto.EXTERNAL or tensor.name in beside
    ]
    large = any(leaves(tensor) or tensor.name in beside for tensor in held)
    return sum(map(nbytes, held)) > INLINE_LIMIT and large


def leaves(tensor: TensorProto) -> bool:
    """Whether a tensor is so large that it leaves the graph."""
    return nbytes(tensor) >= LARGE and tensor.HasField("raw_data")


def rewritten(
    model: onnx.ModelProto,
    stand_in: Callable[[onnx.GraphProto, TensorProto], None],
    beside: Container[str] = (),
) -> onnx.ModelProto:
    """A copy of a model with something else for each of its large weights.

    Args:
        model: The model; its large weights are not copied.
        stand_in: Writes to the copy's graph what stands for one of them.
        beside: Names of others for which something is to stand.
    """
    copy = onnx.ModelProto()
    copy_fields(model, copy, lambda field: field.name != "graph")
    copy_fields(model.graph, copy.graph, lambda field: field.name != "initializer")
    for tensor in model.graph.initializer:
        if leaves(tensor) or tensor.name in beside:
            stand_in(copy.graph, tensor)
        else:
            copy.graph.initializer.add().CopyFrom(tensor)
    return copy


def copy_fields(
    source: Message, target: Message, wanted: Callable[[FieldDescriptor], bool]
) -> None:
    """Copy those fields of a message that are wanted, by their descriptors."""
    for field, value in source.ListFields():
        if not wanted(field):
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def refer(graph: onnx.GraphProto, tensor: TensorProto, **where: str | int) -> None:
    """Add a weight that is stored elsewhere."""
    added = graph.initializer.add(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in where.items():
        added.external_data.add(key=key, value=str(value))


def detach(
    model: onnx.ModelProto, known: Mapping[str, NDArray[Any]] | None = None
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model itself, or a copy without its large weights, and these by name.

    One whose bytes are not those of its shape stays in the graph: who reads that refuses it. So
    does one that no node reads, which onnxruntime drops: it then has no place for another.

    Args:
        model: The model.
        known: Arrays that stay in memory anyway; of what is one of them, bit for bit, under its
            name, no second one is made.
    """
    if not any(map(leaves, model.graph.initializer)):
        return model, {}
    weights: dict[str, NDArray[Any]] = {}
    read = {*_read(model.graph)}

    def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
        array = _array(tensor) if tensor.name in read else None
        if array is None:
            graph.initializer.add().CopyFrom(tensor)
            return
        own = (known or {}).get(tensor.name)
        weights[tensor.name] = array if own is None or not _same(array, own) else own
        refer(graph, tensor, location=IN_MEMORY, offset=0, length=nbytes(tensor))

    return rewritten(model, stand_in), weights


def attached(graph: bytes, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A model as it was before `detach`.

    Raises:
        ExportError: It is beyond 2 GB.
    """
    if sum(array.nbytes for array in weights.values()) > INLINE_LIMIT:
        raise ExportError("the model is beyond 2 GB, and this runtime takes it in one piece only")
    model: onnx.ModelProto = onnx.ModelProto.FromString(graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of what nodes read, inside of others as well, and of what the graph gives."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _read(inner)


def _array(tensor: TensorProto) -> NDArray[Any] | None:
    """The elements, or None where the bytes are not as many as the shape says."""
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays are the same bytes."""
    alike = (one.dtype, one.shape) == (other.dtype, other.shape) and other.flags.c_contiguous
    return alike and np.array_equal(one.view(np.uint8), other.view(np.uint8))


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy that takes its large weights as inputs, see `detach`."""
    if not any(map(leaves, model.graph.initializer)):
        return model

    def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
        if len(tensor.raw_data) != nbytes(tensor):
            graph.initializer.add().CopyFrom(tensor)
            return
        kind, shape = tensor.data_type, list(tensor.dims)
        graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))

    return rewritten(model, stand_in)


def serialised(model: onnx.ModelProto) -> bytes:
    """A model as bytes.

    Raises:
        ExportError: It is too large for one message even without its large weights.
    """
    try:
        content: bytes = model.SerializeToString()
    except (EncodeError, ValueError) as err:
        raise ExportError(
            "the graph takes more than 2 GB without the weights that can be stored beside it"
        ) from err
    return content

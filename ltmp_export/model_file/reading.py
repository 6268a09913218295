"""Reading ONNX files that anyone may have made: tensors that are what they say, from one folder.

A file names other files as places of its weights (external data). They are read here and nowhere
else: what onnxruntime is given afterwards names no file. A name is followed only to a regular file
inside the model's own folder, links resolved, and only for the weights of the main graph.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ltmp_export.errors import InputError
from ltmp_export.files import disk, memory
from ltmp_export.graph import detached
from ltmp_export.model_file import handled

_MOST_AXES = 32  # what every numpy takes
_MOST_BYTES = 2**60  # far beyond any memory, and what numpy can still count


def read(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file; the result holds all its weights itself.

    Raises:
        InputError: It is missing, not ONNX, damaged, larger than the memory limit, or names data
            outside its folder.
    """
    disk.require_file(path, "an ONNX model")
    size = path.stat().st_size
    memory.require_memory(size, str(path))
    try:
        content = path.read_bytes()
        handled.require_onnx(path, content)
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, OSError) as err:
        raise InputError(f"{path} is not an ONNX model (truncated or of another kind)") from err
    if not all(isinstance(node.op_type, str) for node in model.graph.node):
        raise InputError(f"{path} is damaged (the name of an operator is no text)")
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{path} is not an ONNX model (it holds no graph)")
    outside = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    for tensor in _tensors(model):
        _require_sound(path, tensor)
    memory.require_memory(size + sum(map(detached.nbytes, outside)), f"{path} with its weights")
    for tensor in outside:
        _load(path, tensor)
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise InputError(
                f"{path}: the tensor {tensor.name} inside a node, function or sparse tensor is "
                "stored in another file; only weights of the main graph may be"
            )
    return model


def bytes_beside(path: Path) -> int:
    """Bytes of the weights that a model file finds in other files."""
    tensors = onnx.ModelProto.FromString(path.read_bytes()).graph.initializer
    return sum(detached.nbytes(t) for t in tensors if t.data_location == TensorProto.EXTERNAL)


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, wherever it is."""
    yield from _in_graph(model.graph)
    for function in model.functions:
        yield from _in_nodes(function.node)
    for training in model.training_info:
        yield from _in_graph(training.initialization)
        yield from _in_graph(training.algorithm)


def _in_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _in_sparse(graph.sparse_initializer)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _in_sparse([attribute.sparse_tensor])
            yield from _in_sparse(attribute.sparse_tensors)
            if attribute.HasField("g"):
                yield from _in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _in_graph(graph)


def _in_sparse(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[TensorProto]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices


def _require_sound(path: Path, tensor: TensorProto) -> None:
    """Check that a tensor holds, or says it finds elsewhere, as much as its shape takes.

    Raises:
        InputError: It does not, or its type or shape is none.
    """
    dims, name = list(tensor.dims), f"{path} is damaged: the tensor {tensor.name}"
    bits = detached.element_bits(tensor.data_type)
    if (bits is None and tensor.data_type != TensorProto.STRING) or tensor.HasField("segment"):
        raise InputError(f"{name} is of type {tensor.data_type}, or a part; expected numbers")
    size = math.prod(max(d, 1) for d in dims[:_MOST_AXES]) * 16
    if len(dims) > _MOST_AXES or min(dims, default=0) < 0 or size > _MOST_BYTES:
        shown = f"{dims[:8]}{'…' if dims[8:] else ''}"
        raise InputError(f"{name} has the shape {shown}; expected one that fits into memory")
    found, expected, unit = _content(tensor)
    if tensor.data_location != TensorProto.EXTERNAL and found != expected:
        raise InputError(
            f"{name} holds {found} {unit}; its shape {dims} takes {expected}; write the file again"
        )


def _content(tensor: TensorProto) -> tuple[int, int, str]:
    """How much a tensor holds itself, how much its shape takes, and of what."""
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        return len(tensor.raw_data), detached.nbytes(tensor), "bytes"
    count, bits = math.prod(tensor.dims), detached.element_bits(tensor.data_type)
    field, per_value = _field(tensor.data_type)
    if bits is not None and bits < 8:  # several share a value
        count = detached.nbytes(tensor)
    return len(getattr(tensor, field)), count * per_value, "values"


def _field(data_type: int) -> tuple[str, int]:
    """Where a tensor of this type holds its elements if not as bytes, and values for each."""
    found: dict[int, tuple[str, int]] = {
        TensorProto.FLOAT: ("float_data", 1),
        TensorProto.COMPLEX64: ("float_data", 2),
        TensorProto.DOUBLE: ("double_data", 1),
        TensorProto.COMPLEX128: ("double_data", 2),
        TensorProto.INT64: ("int64_data", 1),
        TensorProto.UINT32: ("uint64_data", 1),
        TensorProto.UINT64: ("uint64_data", 1),
        TensorProto.STRING: ("string_data", 1),
    }
    return found.get(data_type, ("int32_data", 1))


def _load(path: Path, tensor: TensorProto) -> None:
    """Read one weight from the file it names into the tensor.

    Raises:
        InputError: It names no file in the folder, or not the bytes its shape takes.
    """
    stated: dict[str, Any] = {entry.key: entry.value for entry in tensor.external_data}
    expected = detached.nbytes(tensor)
    offset = _count(path, tensor, stated, "offset", 0)
    length = _count(path, tensor, stated, "length", expected)
    what = f"{path}: the tensor {tensor.name}"
    if length != expected or tensor.data_type == TensorProto.STRING:
        raise InputError(
            f"{what} names {length} bytes in another file; its shape {list(tensor.dims)} takes "
            f"{expected}; write the file again"
        )
    source = _inside(path, tensor, stated.get("location"))
    try:
        with open(os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{what} is said to be in {source}, which is no regular file")
            if offset + length > status.st_size:
                raise InputError(
                    f"{what} is said to be bytes {offset} to {offset + length} of {source}, which "
                    f"has {status.st_size}; fetch the whole file"
                )
            file.seek(offset)
            content = file.read(length)
    except OSError as err:
        raise InputError(f"{what} is in {source}, which cannot be read: {err.strerror}") from err
    if len(content) != length:
        raise InputError(f"{what} is in {source}, which was cut while it was read; try again")
    tensor.raw_data = content
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _count(path: Path, tensor: TensorProto, stated: dict[str, Any], key: str, default: int) -> int:
    text = stated.get(key, str(default))
    if not isinstance(text, str) or not re.fullmatch("[0-9]{1,18}", text):
        raise InputError(
            f"{path}: the tensor {tensor.name} names {key} {text!r} in another file; expected a "
            "number of bytes"
        )
    return int(text)


def _inside(path: Path, tensor: TensorProto, location: object) -> Path:
    """The file that a model names, if that is in its folder.

    Raises:
        InputError: It is not, or there is none.
    """
    what = f"{path}: the tensor {tensor.name} is said to be in {location!r}"
    if not isinstance(location, str) or not location or "\0" in location:
        raise InputError(f"{what}; expected the name of a file beside the model")
    folder = path.resolve().parent
    apart = re.split(r"[/\\]", location) if os.name == "nt" else location.split("/")
    if Path(location).is_absolute() or Path(location).drive or ".." in apart:
        raise InputError(f"{what}; only files in the model's own folder are read")
    try:
        found = Path(os.path.realpath(folder / location, strict=True))
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise InputError(
            f"{what}, which cannot be read ({reason}); expected it in {folder}, beside the model"
        ) from err
    if not found.is_relative_to(folder):
        raise InputError(
            f"{what}, a link to {found}; only files in the model's own folder are read"
        )
    return found

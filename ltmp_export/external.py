"""Weights beside the graph: models beyond the 2 GB that one serialised message holds (SPEC §3).

In memory a model is one `onnx.ModelProto` that holds its weights, however large: protobuf minds
only when it is serialised. So it is taken apart where it leaves the process:

    for a file       the graph, its large weights in a second file beside it     `store`
    for onnxruntime  the graph as bytes, its large weights as arrays             `detach`
    for the checker  the graph, its large weights as inputs of their shape       `without_weights`

The second file is named after its content, `model.onnx.<digest>.data`. A new export never touches
the one of the old file, and the rename of `model.onnx` alone takes the old pair's place.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ltmp_export import cleanup, files
from ltmp_export.errors import ExportError

INLINE_LIMIT = 2**31 - 2**27  # bytes of weights; a message ends at 2**31, nodes take some of it
LARGE = 2**16  # bytes from which a tensor leaves the graph; thresholds and indices never do
ALIGNMENT = 4096  # so that a reader can map a tensor into memory
IN_MEMORY = "in the memory of this process"  # where a file's name is expected
_PATIENCE = 10.0  # seconds to wait for another writer, which takes milliseconds
_ONLY_THE_GRAPH = 2**28  # bytes; no graph is larger without its weights

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


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the weights that a model holds are too many for one file."""
    held = [t for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL]
    return sum(map(nbytes, held)) > INLINE_LIMIT and any(map(_leaves, held))


def _leaves(tensor: TensorProto) -> bool:
    """Whether a tensor of a large model is stored beside it."""
    return nbytes(tensor) >= LARGE and tensor.HasField("raw_data")


def _rewritten(
    model: onnx.ModelProto, stand_in: Callable[[onnx.GraphProto, TensorProto], None]
) -> onnx.ModelProto:
    """A copy of a model with something else for each of its large weights.

    Args:
        model: The model; its large weights are not copied.
        stand_in: Writes to the copy's graph what stands for one of them.
    """
    copy = onnx.ModelProto()
    _copy_fields(model, copy, without="graph")
    _copy_fields(model.graph, copy.graph, without="initializer")
    for tensor in model.graph.initializer:
        if _leaves(tensor):
            stand_in(copy.graph, tensor)
        else:
            copy.graph.initializer.add().CopyFrom(tensor)
    return copy


def _copy_fields(source: Message, target: Message, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _refer(graph: onnx.GraphProto, tensor: TensorProto, **where: str | int) -> None:
    """Add a weight that is stored elsewhere."""
    added = graph.initializer.add(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in where.items():
        added.external_data.add(key=key, value=str(value))


def detach(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model itself, or for a large one a copy and by name the weights that it then lacks."""
    if not is_large(model):
        return model, {}
    weights: dict[str, NDArray[Any]] = {}

    def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
        weights[tensor.name] = numpy_helper.to_array(tensor)
        _refer(graph, tensor, location=IN_MEMORY, offset=0, length=nbytes(tensor))

    return _rewritten(model, stand_in), weights


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or for a large one a copy that takes its large weights as inputs."""
    if not is_large(model):
        return model

    def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
        kind, shape = tensor.data_type, list(tensor.dims)
        graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))

    return _rewritten(model, stand_in)


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


@dataclass(frozen=True)
class Written:
    """A model on disk.

    Attributes:
        data: The file with its weights, or None where they are in the model's own.
        bytes: Size of both.
    """

    data: Path | None
    bytes: int


def write_model(path: Path, model: onnx.ModelProto) -> Written:
    """Write a model whole or not at all, as one file or, beyond 2 GB of weights, as two.

    What stood at `path`, its own weights included, stays until the new model is complete.

    Raises:
        InputError: It cannot be written there.
        ExportError: It is too large for an ONNX file.
    """
    files.require_outputs([path])
    with files.telling(path):
        return store(path.resolve(), model)


def store(path: Path, model: onnx.ModelProto) -> Written:
    """`write_model` for a path that is known to be good.

    Raises:
        OSError: The system refuses.
        ExportError: It is too large for an ONNX file.
    """
    with files.temporary_beside(path) as graph_file, files.temporary_beside(path) as data_file:
        data, size = None, 0
        if is_large(model):
            places, digest, size = _write_data(data_file, model)
            data = path.with_name(f"{_stem(path)}.{digest[:16]}.data")
            location = data.name

            def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
                start = places[tensor.name]
                _refer(graph, tensor, location=location, offset=start, length=nbytes(tensor))

            model = _rewritten(model, stand_in)
        size += files.write_new(graph_file, [serialised(model)])
        _commit(path, graph_file, data_file, data)
        return Written(data, size)


def _stem(path: Path) -> str:
    """What data files of a model are named after: what is no text cannot be in a model."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in path.name)


def _write_data(path: Path, model: onnx.ModelProto) -> tuple[dict[str, int], str, int]:
    """Write the large weights one after the other: their places, a digest, the size."""
    digest, places, size = hashlib.sha256(), {}, 0

    def parts() -> Iterator[bytes]:
        nonlocal size
        for tensor in filter(_leaves, model.graph.initializer):
            padding = bytes(-size % ALIGNMENT)
            places[tensor.name] = size + len(padding)
            for part in (padding, tensor.raw_data):
                digest.update(part)
                size += len(part)
                yield part

    files.write_new(path, parts())
    return places, digest.hexdigest(), size


def _commit(path: Path, graph_file: Path, data_file: Path, data: Path | None) -> None:
    """Put a model, and the data it refers to, in the place of the old ones.

    The graph's rename is the moment. Before it everything can be taken back, after it the old
    data are nobody's. A second writer waits, an interrupt comes after.
    """
    with _alone_in(path.parent), cleanup.postponed():
        superseded = _own_data(path)
        if data is not None:
            is_new = not os.path.lexists(data)
            os.replace(data_file, data)
        try:
            os.replace(graph_file, path)
        except OSError:
            if data is not None and is_new:
                files.remove(data)
            raise
        for old in superseded:
            if old != data:
                files.remove(old)


def _own_data(path: Path) -> list[Path]:
    """The data files that a model refers to, as far as they are named as here."""
    named = re.compile(re.escape(_stem(path)) + r"\.[0-9a-f]{16}\.data")
    try:
        beside = {name for name in os.listdir(path.parent) if named.fullmatch(name)}
        if not beside or path.stat().st_size > _ONLY_THE_GRAPH:
            return []
        graph = onnx.ModelProto.FromString(path.read_bytes()).graph
    except (OSError, DecodeError):
        return []
    values = {entry.value for tensor in graph.initializer for entry in tensor.external_data}
    return [path.with_name(name) for name in sorted(beside & values)]


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process replaces a model in this folder, as far as the system can tell.

    Nobody takes long: who holds the lock for longer does something else, and is not waited for.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # not readable, or a file system without locks
            opened = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, opened)
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.01)
        yield

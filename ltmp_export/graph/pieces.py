"""A model as the bytes of one message, weight by weight: never all of them at once.

The bytes are those that protobuf writes: fields in the order of their numbers, each message inside
of another behind its tag and its length. Only what is repeated in between is written here, so that
no weight is copied into a larger message, and none of that into a still larger one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.graph.detached import copy_fields

_BYTES = 2  # wire type of what has a length


def pieces(
    model: onnx.ModelProto, beside: Mapping[str, NDArray[Any]]
) -> Iterator[bytes | memoryview]:
    """The serialised model, with the weights beside it where it refers to them, piece by piece."""
    start, behind = _around(model, "graph")
    first, last = _around(model.graph, "initializer")
    headers = [_header(tensor, beside) for tensor in model.graph.initializer]
    total = len(first) + len(last)
    for tensor, header in zip(model.graph.initializer, headers, strict=True):
        total += len(header) + _length(tensor, beside)
    yield start + _tag(model, "graph") + _varint(total) + first
    for tensor, header in zip(model.graph.initializer, headers, strict=True):
        yield header
        if tensor.name in beside:
            yield content(tensor, beside)
    yield last + behind


def content(tensor: TensorProto, beside: Mapping[str, NDArray[Any]]) -> bytes | memoryview:
    """The elements of a weight, where it or what is beside the model has them."""
    if tensor.name not in beside:
        return bytes(tensor.raw_data)
    return np.ascontiguousarray(beside[tensor.name]).reshape(-1).view(np.uint8).data


def _around(message: Message, name: str) -> tuple[bytes, bytes]:
    """A message's fields before one of them, and those after it."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    before, after = type(message)(), type(message)()
    copy_fields(message, before, lambda field: field.number < number)
    copy_fields(message, after, lambda field: field.number > number)
    return before.SerializeToString(), after.SerializeToString()


def _header(tensor: TensorProto, beside: Mapping[str, NDArray[Any]]) -> bytes:
    """What stands before the elements of a weight, or all of one that is not beside the model."""
    tag = _tag(onnx.GraphProto(), "initializer")
    if tensor.name not in beside:
        content: bytes = tensor.SerializeToString()
        return tag + _varint(len(content)) + content
    bare = TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    size = beside[tensor.name].nbytes
    content = bare.SerializeToString() + _tag(bare, "raw_data") + _varint(size)
    return tag + _varint(len(content) + size) + content


def _length(tensor: TensorProto, beside: Mapping[str, NDArray[Any]]) -> int:
    return beside[tensor.name].nbytes if tensor.name in beside else 0


def _tag(message: Message, name: str) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[name].number
    return _varint(number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the highest bit set."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])

"""Models on disk: one file, or beyond 2 GB of weights two (METHOD §3).

The second file is named after its content, `model.onnx.<digest>.data`. A new export never touches
the one of the old file, and the rename of `model.onnx` alone takes the old pair's place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.files import disk, undo
from ltmp_export.graph.detached import (
    is_large,
    leaves,
    nbytes,
    refer,
    rewritten,
    serialised,
)
from ltmp_export.graph.pieces import content, pieces

ALIGNMENT = 4096  # so that a reader can map a tensor into memory
_PATIENCE = 10.0  # seconds to wait for another writer, which takes milliseconds
_ONLY_THE_GRAPH = 2**28  # bytes; no graph is larger without its weights


@dataclass(frozen=True)
class Written:
    """A model on disk.

    Attributes:
        data: The file with its weights, or None where they are in the model's own.
        bytes: Size of both.
    """

    data: Path | None
    bytes: int


def write_model(
    path: Path, model: onnx.ModelProto, beside: Mapping[str, NDArray[Any]] | None = None
) -> Written:
    """Write a model whole or not at all, as one file or, beyond 2 GB of weights, as two.

    `beside` are weights that it only refers to, see `graph.detached.detach`. What stood at `path`,
    its own weights included, stays until the new model is complete.

    Raises:
        InputError: It cannot be written there.
        ExportError: It is too large for an ONNX file.
    """
    disk.require_outputs([path])
    with disk.telling(path):
        return store(path.resolve(), model, beside)


def store(
    path: Path, model: onnx.ModelProto, beside: Mapping[str, NDArray[Any]] | None = None
) -> Written:
    """`write_model` for a path that is known to be good.

    Raises:
        OSError: The system refuses.
        ExportError: It is too large for an ONNX file.
    """
    with disk.temporary_beside(path) as graph_file, disk.temporary_beside(path) as data_file:
        data, size = None, 0
        weights = beside or {}
        if is_large(model, weights):
            places, digest, size = _write_data(data_file, model, weights)
            data = path.with_name(f"{_stem(path)}.{digest[:16]}.data")
            location = data.name

            def stand_in(graph: onnx.GraphProto, tensor: TensorProto) -> None:
                start = places[tensor.name]
                refer(graph, tensor, location=location, offset=start, length=nbytes(tensor))

            model, weights = rewritten(model, stand_in, weights), {}
        parts = pieces(model, weights) if weights else [serialised(model)]
        size += disk.write_new(graph_file, parts)
        _commit(path, graph_file, data_file, data)
        return Written(data, size)


def _stem(path: Path) -> str:
    """What data files of a model are named after: what is no text cannot be in a model."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in path.name)


def _write_data(
    path: Path, model: onnx.ModelProto, beside: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, int], str, int]:
    """Write the large weights one after the other: their places, a digest, the size."""
    digest, places, size = hashlib.sha256(), {}, 0

    def parts() -> Iterator[bytes | memoryview]:
        nonlocal size
        for tensor in model.graph.initializer:
            if not leaves(tensor) and tensor.name not in beside:
                continue
            padding = bytes(-size % ALIGNMENT)
            places[tensor.name] = size + len(padding)
            for part in (padding, content(tensor, beside)):
                digest.update(part)
                size += len(part)
                yield part

    disk.write_new(path, parts())
    return places, digest.hexdigest(), size


def _commit(path: Path, graph_file: Path, data_file: Path, data: Path | None) -> None:
    """Put a model, and the data it refers to, in the place of the old ones.

    The graph's rename is the moment. Before it everything can be taken back, after it the old
    data are nobody's. A second writer waits, an interrupt comes after.
    """
    with _alone_in(path.parent), undo.postponed():
        superseded = _own_data(path)
        if data is not None:
            is_new = not os.path.lexists(data)
            os.replace(data_file, data)
        try:
            os.replace(graph_file, path)
        except OSError:
            if data is not None and is_new:
                disk.remove(data)
            raise
        for old in superseded:
            if old != data:
                disk.remove(old)


def files_beside(path: Path) -> list[Path]:
    """The files of weights that a model which has been read refers to."""
    graph = onnx.load(path, load_external_data=False).graph
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data)
    return [path.with_name(n) for n in sorted({e.value for e in entries if e.key == "location"})]


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

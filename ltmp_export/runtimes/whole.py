"""Models in one piece, for runtimes that take no weights beside a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ltmp_export.files.workplace import workplace
from ltmp_export.runtimes.session import Serialised, Source


def in_memory(source: Serialised) -> bytes:
    """A model with its weights inside.

    Raises:
        ExportError: That is beyond 2 GB.
    """
    if not source.weights:
        return source.graph
    from ltmp_export.graph import detached  # it imports ONNX

    return detached.serialised(detached.attached(source.graph, source.weights))


@contextlib.contextmanager
def on_disk(source: Source) -> Iterator[Path]:
    """A model as a file, a temporary one where it is in memory.

    Raises:
        ExportError: It is in memory and beyond 2 GB.
    """
    if isinstance(source, Path):
        yield source
        return
    with workplace() as folder:
        path = folder / "model.onnx"
        path.write_bytes(in_memory(source))
        yield path

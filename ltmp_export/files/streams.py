"""What this process writes to its output and errors, also past Python: for libraries that print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

_OUTPUTS = (1, 2)


@contextlib.contextmanager
def silence(into: BinaryIO | None = None) -> Iterator[None]:
    """While it lasts, nothing that this process writes is seen.

    Args:
        into: A file that takes it; by default it is lost.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in _OUTPUTS]
    with open(os.devnull, "wb") as nowhere:
        try:
            for stream in _OUTPUTS:
                os.dup2((into or nowhere).fileno(), stream)
            yield
        finally:
            for stream, kind in zip(_OUTPUTS, kept, strict=True):
                os.dup2(kind, stream)
                os.close(kind)

"""How much memory the content of a file may take, so that a small file cannot claim all of it.

And that what was taken goes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from ltmp_export.errors import InputError

GIB = 2**30
_RETURNED = 2**21  # bytes of a block that goes back to the system when it is freed
_MMAP_THRESHOLD = -3  # glibc's name of that
DEFAULT_MEMORY_LIMIT = 8.0  # GiB: the float32 weights of a ViT of two thousand million parameters

_limit: ContextVar[float] = ContextVar("memory_limit", default=DEFAULT_MEMORY_LIMIT)


@contextlib.contextmanager
def memory_limit(gib: float) -> Iterator[None]:
    """Let the content of one file (weights or images) take up to `gib` GiB inside the block.

    Raises:
        InputError: It is not a number above 0.
    """
    if not (math.isfinite(gib) and gib > 0):
        raise InputError(f"a memory limit of {gib:g} GiB; expected a number above 0")
    token = _limit.set(gib)
    try:
        yield
    finally:
        _limit.reset(token)


def current_memory_limit() -> float:
    """The limit in GiB that holds now."""
    return _limit.get()


def require_memory(size: int, what: str) -> None:
    """Check that `size` bytes may be taken for `what`, before they are.

    Raises:
        InputError: They are more than the limit.
    """
    if size > _limit.get() * GIB:
        raise InputError(
            f"{what} would take {size / GIB:.1f} GiB of memory, more than the limit of "
            f"{_limit.get():g} GiB; if that is right, raise it: ltmp --memory-limit "
            f"{math.ceil(size / GIB)} …"
        )


def return_freed() -> None:
    """Let blocks of megabytes, such as weights, go back to the system when they are freed.

    glibc keeps them once some were freed, in pieces that the next weights do not fit in. Other
    systems and C libraries have a way of their own.
    """
    if sys.platform == "linux" and (adjust := getattr(ctypes.CDLL(None), "mallopt", None)):
        adjust(_MMAP_THRESHOLD, _RETURNED)

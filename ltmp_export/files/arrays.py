"""NumPy's files, as anyone may have written them."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

# What numpy raises on files that hold no arrays, or damaged ones.
UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    MemoryError,
    TypeError,
    tokenize.TokenError,
    OverflowError,
)


def reason(err: Exception) -> str:
    """Why one of numpy's files is not read, without its advice to run what such a file holds."""
    return "it holds no array of numbers" if "allow_pickle" in str(err) else str(err)

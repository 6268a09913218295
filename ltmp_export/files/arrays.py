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

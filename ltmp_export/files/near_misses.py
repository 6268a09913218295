"""What was probably meant by a name that is nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """'; did you mean …?' with the nearest names, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def nearby_file(path: Path) -> str:
    """The same for a file that is not there, from the names beside it."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return ""
    return did_you_mean(path.name, names, cutoff=0.6)

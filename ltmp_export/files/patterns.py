"""Patterns that stand for many files: `shard-{000..009}.tar`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import remote

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 100_000  # files of a pattern


def expanded(source: Path) -> Iterator[Path]:
    """The files of a pattern, or the one that is none.

    Raises:
        InputError: A range falls, or is beyond anybody's files.
    """
    text = str(source)
    ranges = list(_RANGE.finditer(text))
    if not ranges:
        yield source
        return
    numbers, total = [], 1
    for one in ranges:
        first, last = int(one[1]), int(one[2])
        total *= last - first + 1
        if last < first or total > _MOST:
            raise InputError(
                f"{remote.shown(source)}: {one[0]} is no range of files like {{000..009}}"
            )
        numbers.append([str(n).zfill(len(one[1])) for n in range(first, last + 1)])
    for chosen in itertools.product(*numbers):
        remaining = iter(chosen)
        yield Path(_RANGE.sub(lambda _, left=remaining: next(left), text))  # type: ignore[misc]

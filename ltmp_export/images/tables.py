"""Hugging Face datasets in parquet: a column of pictures (`bytes`, `path`), one of labels.

Which columns these are, the file says itself where `datasets` wrote it (features `Image` and
`ClassLabel`); else they are called `image` and `label`. A picture without bytes is the file its
path names, beside the table. Pictures are read by row groups, as many rows as the file has in one.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.files import memory, remote
from ltmp_export.images import records
from ltmp_export.images.records import Label

SUFFIX = ".parquet"
_PICTURES, _LABELS = ("image", "img", "jpg", "png"), ("label", "labels", "cls")
_Table = Any  # pyarrow is optional


@dataclass(frozen=True)
class Rows:
    """The pictures of a table.

    Attributes:
        path: The file.
        column: Of the pictures.
        groups: [g + 1] the first row of each group, and how many rows there are.
        key: Of what is kept of it; a file may have been another when it was looked at before.
    """

    path: Path
    column: str
    groups: NDArray[np.int64] = field(repr=False)
    key: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def __getitem__(self, number: int) -> bytes:
        group = int(np.searchsorted(self.groups, number, "right")) - 1
        rows = _group(self.path, self.column, group, self.key)
        row = rows[number - int(self.groups[group])]
        content = row.get("bytes") if isinstance(row, dict) else row
        if isinstance(content, bytes):
            return content
        place = row.get("path") if isinstance(row, dict) else None
        if not isinstance(place, str) or not place or Path(place).is_absolute() or ".." in place:
            raise InputError(
                f"{remote.shown(self.path)}: row {number} has neither the bytes of a picture nor a "
                "path beside the table"
            )
        return remote.whole(self.path.parent / place)


def read(path: Path) -> tuple[Rows, list[str], list[Label]]:
    """The pictures of a table in their order: where they stand, names and labels.

    Raises:
        InputError: It is no parquet, or has no column of pictures.
        UnavailableError: pyarrow is missing.
    """
    shown = remote.shown(path)
    if importlib.util.find_spec("pyarrow") is None:
        raise UnavailableError(
            f"{shown} is read by pyarrow, which is not installed; install it, or ltmp's extra "
            "'data'"
        )
    with remote.opened(path) as file:
        table, stated = _open(file, shown)
        schema = table.schema_arrow
        column = _column(schema, stated, "Image", _PICTURES)
        if column is None:
            raise InputError(
                f"{shown} has no column of pictures (found: {', '.join(schema.names[:6])}); "
                "expected 'image' with bytes or a path"
            )
        label = _column(schema, stated, "ClassLabel", _LABELS)
        counts = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        values = [None] * sum(counts) if label is None else _values(table, label, shown)
    names = [f"{path.name}[{row}]" for row in range(sum(counts))]
    known = None if label is None else (stated.get(label) or {}).get("names")
    labels = [_label(value, name, known) for value, name in zip(values, names, strict=True)]
    return Rows(path, column, np.cumsum([0, *counts])), names, labels


def _open(file: Any, shown: str) -> tuple[_Table, Mapping[str, Any]]:
    """A table, and the features that `datasets` states of its columns.

    Raises:
        InputError: It is none.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        raise InputError(f"{shown} is no readable parquet: {_line(err)}") from err
    written = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(written)["info"]["features"]
        return table, {k: v for k, v in features.items() if isinstance(v, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return table, {}


def _line(err: Exception) -> str:
    return " ".join(str(err).split())


def _column(
    schema: Any, stated: Mapping[str, Any], kind: str, usual: tuple[str, ...]
) -> str | None:
    """The column of that feature, the one called as usual where there are several."""
    marked = [n for n in schema.names if (stated.get(n) or {}).get("_type") == kind]
    among = marked or list(schema.names)
    called = [name for name in usual if name in among]
    return called[0] if called else marked[0] if marked else None


def _values(table: _Table, column: str, shown: str) -> list[Any]:
    """A column of labels.

    Raises:
        InputError: It cannot be read.
    """
    import pyarrow

    try:
        values: list[Any] = table.read(columns=[column]).column(0).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        raise InputError(f"{shown}: {column} cannot be read: {_line(err)}") from err
    return values


def _label(value: object, name: str, known: Any) -> Label:
    """A label as a table states it; `datasets` writes -1 where there is none."""
    if value is None or (value == -1 and known is not None):
        return None
    return records.label_of(value, name)


@functools.lru_cache(maxsize=2)
def _group(path: Path, column: str, group: int, key: str) -> list[Any]:
    """The pictures of a row group, kept until others are asked for.

    Raises:
        InputError: It cannot be read.
    """
    import pyarrow

    shown = remote.shown(path)
    with remote.opened(path) as file:
        table, _ = _open(file, shown)
        size = table.metadata.row_group(group).total_byte_size
        memory.require_memory(size, f"{shown}: {size} bytes of a row group")
        try:
            rows: list[Any] = table.read_row_group(group, columns=[column]).column(0).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as err:
            raise InputError(f"{shown}: {column} cannot be read: {_line(err)}") from err
    return rows

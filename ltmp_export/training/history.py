"""What each step of a run gave: one row per step, as numbers and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ltmp_export.training.record import Record

_FIGURES = ("epoch", "step", "loss", "cross_entropy", "accuracy", "mac_ratio", "rate")


def to_tensor(history: Sequence[Record]) -> Tensor:
    """[steps, columns] float64."""
    return torch.tensor([list(_row(record)) for record in history], dtype=torch.float64)


def from_tensor(rows: Tensor, kinds: Sequence[str], terms: Sequence[str] = ()) -> list[Record]:
    """The inverse of `to_tensor`, for thresholds of these kinds and terms of these names."""
    return [_record(row, kinds, terms) for row in rows.tolist()]


def to_csv(history: Sequence[Record]) -> bytes:
    """A header, then a row for each step; thresholds as `merge_0` for block 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(history[0]) if history else _FIGURES)
    writer.writerows([f"{value:.9g}" for value in _row(record)] for record in history)
    return text.getvalue().encode()


def _columns(record: Record) -> list[str]:
    blocks = [
        f"{kind}_{i}" for kind, values in record.thresholds.items() for i in range(len(values))
    ]
    return [*_FIGURES, *record.terms, *blocks]


def _row(record: Record) -> Iterator[float]:
    for figure in _FIGURES:
        yield getattr(record, figure)
    yield from record.terms.values()
    for values in record.thresholds.values():
        yield from values


def _record(row: Sequence[float], kinds: Sequence[str], terms: Sequence[str]) -> Record:
    epoch, step, *figures = row[: len(_FIGURES)]
    loss, cross_entropy, accuracy, mac_ratio, rate = figures
    behind = len(_FIGURES) + len(terms)
    named = dict(zip(terms, row[len(_FIGURES) : behind], strict=True))
    values = row[behind:]
    depth = len(values) // max(len(kinds), 1)
    thresholds = {kind: list(values[i * depth : (i + 1) * depth]) for i, kind in enumerate(kinds)}
    return Record(
        int(epoch), int(step), loss, cross_entropy, accuracy, mac_ratio, rate, thresholds, named
    )

"""Runs of training that end before their time, as a machine that is lost."""

from __future__ import annotations

from collections.abc import Callable

from ltmp_export.training.record import Record


class LostError(Exception):
    """Stands for a lost machine: nothing after it runs."""


def stop_after(step: int) -> Callable[[Record, int], None]:
    def watch(record: Record, total: int) -> None:
        if record.step == step:
            raise LostError

    return watch

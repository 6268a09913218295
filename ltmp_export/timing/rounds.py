"""Rounds: every contender runs every image once, one contender after the other, again and again.

Whatever slows the machine for a while meets all contenders alike. Only one process runs at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import LtmpError
from ltmp_export.images.inputs import batches
from ltmp_export.progress import Progress
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.processes import Process
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing

T = TypeVar("T")
Rows = Callable[[Contender, Sequence[NDArray[np.int64]]], list[list[int]]]


class Field:
    """Contenders in their processes; one that fails leaves, unless it is required.

    Args:
        contenders: What to time.
        shared: What every process is told besides (`images`, `threads`).
        folder: For the processes.
        stack: Ends the processes.

    Attributes:
        engines: Runtime and version by label, of those that opened.
        reasons: Why a contender left, by label.

    Raises:
        LtmpError: A required contender did not open; `ask` raises for it likewise.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        shared: Mapping[str, Any],
        folder: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self.engines: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._contenders = {contender.label: contender for contender in contenders}
        self._processes: dict[str, Process] = {}
        for contender in contenders:
            label = contender.label
            process = stack.enter_context(Process(label, {**contender.start(), **shared}, folder))
            self._processes[label] = process
            reply = self._attempt(contender, process.open)
            if reply is not None:
                self.engines[label] = reply["engine"]

    @property
    def contenders(self) -> list[Contender]:
        """Those still there."""
        return [self._contenders[label] for label in self._processes]

    def ask(self, contender: Contender, do: str, **arguments: Any) -> dict[str, Any] | None:
        """A reply, or None from one that failed now or before."""
        process = self._processes.get(contender.label)
        if process is None:
            return None
        return self._attempt(contender, lambda: process.ask(do, **arguments))

    def _attempt(
        self, contender: Contender, call: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        try:
            return call()
        except LtmpError as err:
            if contender.required:
                raise
            self.leave(contender, str(err))
            return None

    def leave(self, contender: Contender, reason: str) -> None:
        """Time it no longer."""
        self._processes.pop(contender.label).close()
        self.reasons[contender.label] = reason


def prepare(
    field: Field, contender: Contender, rows: Rows, groups: Sequence[Any], warmup: Sequence[int]
) -> None:
    """Hand a contender its batches."""
    indices = [group.tolist() for group in groups]
    field.ask(
        contender,
        "prepare",
        batches=indices,
        rows=rows(contender, groups),
        warmup=warmup,
    )


def no_rows(contender: Contender, groups: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """What batches mean to contenders of which none is of kind "gemms"."""
    return [[] for _ in groups]


def run(
    field: Field,
    by_tokens: NDArray[np.int64],
    rows: Rows,
    settings: Settings,
    progress: Progress,
    rehearse: bool = True,
) -> list[Timing]:
    """Time all contenders in alternating rounds.

    Args:
        field: The contenders.
        by_tokens: [images] their indices, those with the fewest tokens first; warm-up runs are
            spread over them.
        rows: What each batch means to a contender of kind "gemms".
        settings: Batch sizes, rounds and warm-up runs.
        progress: Called at each round.
        rehearse: Whether a round begins with a run that does not count, see `worker.Worker.round`.

    Returns:
        For each batch size the contenders in their order, as far as they take it.
    """
    count, timings = len(by_tokens), []
    warmup, total = settings.warmup, settings.iterations
    spread = np.linspace(0, count - 1, max(warmup, 1)).round().astype(int)[:warmup]
    for size in settings.sizes:
        groups = batches(count, size)
        taking = [c for c in field.contenders if not c.single or size == 1]
        for contender in taking:
            first = [int(image) // size for image in by_tokens[spread]]
            prepare(field, contender, rows, groups, first)
        samples: dict[str, list[list[float]]] = {c.label: [] for c in taking}
        for number in range(total):
            progress(f"batch {size}: round {number + 1} of {total}")
            for contender in rotated(taking, number):
                reply = field.ask(contender, "round", rehearse=rehearse)
                if reply is not None:
                    milliseconds = [1e3 * one / size for one in reply["seconds"]]
                    samples[contender.label].append(milliseconds)
        timings += [
            Timing(c.label, size, count, tuple(map(tuple, samples[c.label])))
            for c in field.contenders
            if len(samples.get(c.label, ())) == total
        ]
    return timings


def rotated(items: Sequence[T], number: int) -> list[T]:
    """Another one is the first in every round."""
    start = number % max(len(items), 1)
    return [*items[start:], *items[:start]]

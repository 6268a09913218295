"""Which number of threads is best for a model: tried in short runs, one count after the other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.images.inputs import batches
from ltmp_export.progress import Progress
from ltmp_export.runtimes import session
from ltmp_export.timing.contenders import REDUCED, Contender
from ltmp_export.timing.report import Tried
from ltmp_export.timing.rounds import Field, no_rows, prepare, rotated
from ltmp_export.timing.settings import Settings

EACH = 4  # up to so many threads each count is tried, beyond them powers of two, and all
IMAGES, ROUNDS = 6, 3


def used(settings: Settings) -> int:
    """Threads of an operator: those that are stated, else all processors."""
    return settings.stated_threads or session.processor_count()


def counts(processors: int) -> tuple[int, ...]:
    """The counts that are tried: few on any machine, one thread and all of them always."""
    doubled = (2**power for power in range(1, processors.bit_length()))
    found = {*range(1, EACH + 1), *doubled, processors}
    return tuple(sorted(count for count in found if count <= processors))


def tried(
    contenders: Sequence[Contender],
    shared: Mapping[str, Any],
    folder: Path,
    by_tokens: NDArray[np.int64],
    sizes: Sequence[int],
    processors: int,
    progress: Progress,
) -> tuple[Tried, ...]:
    """Time contenders with each count, in alternating rounds of a few images.

    Args:
        contenders: What to time, one after the other: only one's processes are open at a time.
        shared: What every process is told besides its threads.
        folder: For the processes.
        by_tokens: [images] their indices, those with the fewest tokens first.
        sizes: Batch sizes.
        processors: The most threads.
        progress: Called with a few words as each contender begins.

    Raises:
        LtmpError: A contender does not run.
    """
    found: list[Tried] = []
    for contender in contenders:
        progress(f"trying threads: {contender.label}")
        with contextlib.ExitStack() as stack:
            fields = {
                count: Field([contender], {**shared, "threads": count}, folder, stack)
                for count in counts(processors)
            }
            for size in sizes:
                best = _best(contender, fields, _groups(by_tokens, size), size)
                found += [Tried(contender.label, size, count, ms) for count, ms in best.items()]
    return tuple(found)


def _groups(by_tokens: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of images of few and of many tokens."""
    many = min(max(IMAGES, size), len(by_tokens))
    chosen = by_tokens[np.linspace(0, len(by_tokens) - 1, many).round().astype(int)]
    return [chosen[index] for index in batches(many, size)]


def _best(
    contender: Contender,
    fields: Mapping[int, Field],
    groups: Sequence[NDArray[np.int64]],
    size: int,
) -> dict[int, float]:
    """Milliseconds per image by count, each batch's fastest round."""
    samples: dict[int, list[list[float]]] = {count: [] for count in fields}
    for field in fields.values():
        prepare(field, contender, no_rows, groups, (0,))
    for number in range(ROUNDS):
        for count in rotated(list(fields), number):
            reply = fields[count].ask(contender, "round")
            if reply is None:
                raise ValueError(f"{contender.label} is required, so it has answered or raised")
            samples[count].append(reply["seconds"])
    return {count: 1e3 / size * float(np.min(s, axis=0).mean()) for count, s in samples.items()}


def best(found: Sequence[Tried], model: str = REDUCED) -> int:
    """The count that is best for a model, over all batch sizes; of equal ones the smallest.

    Each batch size counts alike: what decides is the product of the times.
    """
    totals: dict[int, float] = {}
    for one in found:
        if one.model == model:
            totals[one.threads] = totals.get(one.threads, 0.0) + math.log(one.best)
    return min(totals, key=lambda count: (totals[count], count))

"""The process in which one contender is timed: one JSON line in for each line out.

It imports its own runtime and no other. What it does not survive it reports as its last line.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ltmp_export.runtimes import session
from ltmp_export.timing import engines, profiling


def main(start: Mapping[str, Any]) -> None:
    """Open the contender, then obey until the pipe closes."""
    replies = _take_stdout()
    sys.excepthook = lambda kind, error, trace: _last_words(replies, kind, error, trace)
    if start["kind"] == "literal":
        from ltmp_export.timing import literal

        literal.export(start["file"], start["choices"], start["base_checkpoint"], start["output"])
        _reply(replies, {})
        return
    if start["kind"] == "profile":
        nodes = profiling.profile(start, _pixels(start))
        _reply(replies, {"nodes": nodes})
        return
    worker = Worker(engines.open_engine(start), _pixels(start))
    _reply(replies, {"engine": worker.engine.engine})
    for line in sys.stdin:
        command = json.loads(line)
        _reply(replies, getattr(worker, command.pop("do"))(**command))


class Worker:
    """Times one engine on command; every method's result is a reply."""

    def __init__(self, engine: session.Engine | engines.Gemms, pixels: NDArray[np.float32]) -> None:
        self.engine = engine
        self.pixels = pixels
        self.inputs: list[Any] = []

    def prepare(
        self,
        batches: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        warmup: Sequence[int],
    ) -> dict[str, Any]:
        """Take the images of each batch, and run those of `warmup` without counting."""
        self.inputs = [
            engines.inputs(self.engine, np.ascontiguousarray(self.pixels[index]), count)
            for index, count in zip(batches, rows, strict=True)
        ]
        for batch in warmup:
            self.engine.run(self.inputs[batch])
        return {}

    def outputs(self, keep: int) -> dict[str, Any]:
        """Of the first output [B, n] where each lies highest [batches][B], and the first [B][n].

        Of logits that is the class. An output of another shape gives how many numbers an image has
        at all, and nothing else.
        """
        first = [self.engine.run(batch)[0] for batch in self.inputs]
        flat = all(batch.ndim == 2 for batch in first)
        return {
            "width": first[0][0].size,
            "top1": [batch.argmax(axis=1).tolist() for batch in first] if flat else None,
            "logits": [batch.tolist() for batch in first[:keep]],
        }

    def round(self, rehearse: bool = True) -> dict[str, Any]:
        """Every batch once, in order; seconds of each.

        The first batch is run once more before, without counting: another process had the caches.
        Where a run takes long, that is lost in it, and need not be.
        """
        run, seconds = self.engine.run, []
        if rehearse:
            run(self.inputs[0])
        gc.collect()
        gc.disable()
        try:
            for batch in self.inputs:
                start = time.perf_counter()
                run(batch)
                seconds.append(time.perf_counter() - start)
        finally:
            gc.enable()
        return {"seconds": seconds}

    def usage(self) -> dict[str, Any]:
        """Largest memory so far in MB (10^6 bytes), None where the system does not tell it.

        And the processor seconds so far.
        """
        return {"peak_mb": _peak_memory(), "cpu_seconds": time.process_time()}


def _peak_memory() -> float | None:
    """Linux keeps the parent's in `ru_maxrss` of a child, but not in its status."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _pixels(start: Mapping[str, Any]) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = np.load(start["images"], mmap_mode="r")
    return pixels


def _take_stdout() -> TextIO:
    """Keep the pipe for replies: what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _last_words(
    replies: TextIO, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.__excepthook__(kind, error, trace)
    _reply(replies, {"error": kind.__name__, "message": str(error)})

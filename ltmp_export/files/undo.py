"""What a process must not leave behind, however it ends: half-written files, folders, children.

    with undone(partial(files.remove, temporary)):  # entered before there is anything to undo
        ...

`undone` is a `finally` that is also found from outside: by the command's signal handler, which ends
the process without raising (`ltmp_cli.interrupts`), and at the exit, should a second Ctrl-C have
cut a `finally` short. Only SIGKILL and a lost machine leave something.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = tuple(
    signal.Signals(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)

_numbers = itertools.count()
_pending: dict[int, tuple[int, Callable[[], object]]] = {}  # the process, what to call


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` when the block ends, or the process inside it.

    Args:
        undo: Safe to call before there is anything to undo, twice, and while it runs; raises
            nothing of its own.
    """
    number = next(_numbers)
    _pending[number] = os.getpid(), undo
    try:
        yield
    finally:
        undo()
        _pending.pop(number, None)


def undo_all() -> None:
    """Undo what is still to be undone in this process, the newest first."""
    for number in sorted(_pending, reverse=True):
        process, undo = _pending.get(number, (0, None))
        if undo is not None and process == os.getpid():  # a fork's copy is its parent's business
            undo()
        _pending.pop(number, None)


atexit.register(undo_all)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let signals that end the process wait until the block, a matter of milliseconds, is done.

    Python runs their handlers in the main thread only: elsewhere there is nothing to postpone.
    """
    arrived: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):  # None: not set by Python, nor to be
                    handlers[number] = handler
                    signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in arrived[:1]:
            signal.raise_signal(late)

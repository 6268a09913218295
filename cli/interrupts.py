"""Ctrl-C and its kin end the command at once, in one line, and leave nothing behind.

The handler ends the process itself. An exception raised in its place is lost or becomes a traceback
wherever Python or a library cannot let one pass: while modules are imported, in `__del__`, at the
shutdown. So nothing of this needs typer, and it is in force before typer is imported.
"""

from __future__ import annotations

import atexit
import os
import signal
from types import FrameType

from ltmp_export.files import undo

_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"  # and an empty line, where the spinner was

spinning = False  # whether a spinner has hidden the cursor of a terminal


def end_on_termination() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end the command with 128 + their number: 130, 143, 129.

    One that the command was started with ignored (by nohup, in the background) stays ignored.
    """
    for number in undo.SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    atexit.register(_ignore)  # the work is done, and said to be


def _ignore() -> None:
    for number in undo.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    try:
        _ignore()  # a second one must not cut short what follows
        undo.undo_all()
        words = "interrupted\n" if number == signal.SIGINT else ""
        text = (_SHOW_CURSOR if spinning else "") + words
        os.write(2, text.encode())  # past Python's buffer, which may be in use here and now
    finally:
        os._exit(128 + number)

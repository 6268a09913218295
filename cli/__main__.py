"""The command itself, `ltmp` or `python -m ltmp_cli`: interrupts first, then what takes time."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence

from .interrupts import end_on_termination

_BETWEEN_COLLECTIONS = 100_000  # new objects; imports alone make a million that stay


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; the command line's arguments by default."""
    end_on_termination()
    gc.set_threshold(_BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)  # what the system takes back anyway is not searched once more
    from .main import app

    app(arguments)


if __name__ == "__main__":
    main()

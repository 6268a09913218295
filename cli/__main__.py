"""The command itself, `ltmp` or `python -m ltmp_cli`: interrupts first, then what takes time."""

from __future__ import annotations

from collections.abc import Sequence

from .interrupts import end_on_termination


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; the command line's arguments by default."""
    end_on_termination()
    from .main import app

    app(arguments)


if __name__ == "__main__":
    main()

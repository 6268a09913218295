"""The command itself, `ltmp` or `python -m ltmp_cli`: interrupts first, then what takes time."""

from __future__ import annotations

from .interrupts import end_on_termination


def main() -> None:
    """Entry point of the console script."""
    end_on_termination()
    from .main import app

    app()


if __name__ == "__main__":
    main()

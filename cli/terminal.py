"""What a person sees: results on stdout, progress, warnings and errors on stderr."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
TERMINATED = 143


def end_on_termination() -> None:
    """Let SIGTERM end the command as an exit does: what it keeps in temporary folders goes."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))


def reporting_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this package's errors into one line on stderr and the exit code of SPEC §4."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from ltmp_export.errors import LtmpError

        try:
            return command(*args, **kwargs)
        except LtmpError as err:
            line = " ".join(str(err).split())
            _say(f"error: {line}", "red")
            raise typer.Exit(err.exit_code) from err
        except KeyboardInterrupt as err:
            _say("interrupted", "red")
            raise typer.Exit(INTERRUPTED) from err

    return run


def show(result: RenderableType) -> None:
    """Print a result on stdout; off a terminal without colour, wrapping or trailing blanks."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(result)
        return
    wide = Console(highlight=False, soft_wrap=True, width=200)
    with wide.capture() as captured:
        wide.print(result)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def warn(*messages: str) -> None:
    """Print warnings on stderr."""
    for message in messages:
        _say(f"warning: {message}", "yellow")


def note(message: str) -> None:
    """Print a remark on stderr."""
    _say(message, "")


def annotate(commands: Iterable[str]) -> None:
    """Print workflow commands, where GitHub Actions reads them."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for command in commands:
            typer.echo(command)


def _say(line: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(line, style))


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A status line on stderr while the body runs; call what it yields to change its words.

    It turns slowly, since `bench` measures meanwhile. Off a terminal nothing is printed.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting", refresh_per_second=3) as status:
        yield lambda words: status.update(words)


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write a report for machines, if a file was asked for."""
    if path is not None:
        from ltmp_export import files, reports

        files.write_bytes(path, reports.to_json(document).encode())

"""What a person sees: results on stdout, progress, warnings and errors on stderr."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import typer

from . import interrupts

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from ltmp_export.training.record import Record

    Watch = Callable[[Record, int], None]


class Report(Protocol):
    """What a command found, with what was assumed and what looks wrong."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong."""


P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130


def reporting_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this package's errors into one line on stderr and the exit code of METHOD §4."""

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
        console.print(_Printable(result))
        return
    wide = Console(highlight=False, soft_wrap=True, width=200)
    with wide.capture() as captured:
        wide.print(_Printable(result))
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def warn(*messages: str) -> None:
    """Print warnings on stderr."""
    for message in messages:
        _say(f"warning: {message}", "yellow")


def warn_of(report: Report) -> None:
    """Print on stderr what a command assumed, in one line, and its warnings."""
    warn(*([f"assumed: {'; '.join(report.notes)}"] if report.notes else []), *report.warnings)


def note(message: str) -> None:
    """Print a remark on stderr."""
    _say(message, "")


def annotate(commands: Iterable[str]) -> None:
    """Print workflow commands, where GitHub Actions reads them."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for command in commands:
            typer.echo(printable(command))


def _say(line: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False, soft_wrap=True).print(_Printable(Text(line, style)))


class _Printable:
    """What it shows, with control characters written out: a file's names cannot steer a terminal.

    Lone surrogates, of a name that is no Unicode, are written out as well.
    """

    def __init__(self, shown: RenderableType) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for segment in console.render(self.shown, options):
            text = segment.text if segment.control else printable(segment.text)
            yield Segment(text, segment.style, segment.control)


def printable(text: str) -> str:
    """The text with everything but newlines written out that a terminal would not show."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A status line on stderr while the body runs; call what it yields to change its words.

    It turns slowly, since `bench` measures meanwhile. Off a terminal nothing is printed.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    interrupts.spinning = console.is_terminal
    try:
        with console.status("starting", refresh_per_second=3) as status:
            yield lambda words: status.update(words)
    finally:
        interrupts.spinning = False


@contextlib.contextmanager
def training_progress(
    target: float | None, *, shown: bool = True
) -> Iterator[tuple[Callable[[str], None], Watch]]:
    """A bar on stderr while a model trains; off a terminal a line for every tenth of the steps.

    Args:
        target: MAC ratio to reach, where it is stated.
        shown: Whether this process shows anything.

    Yields:
        What to call with words as each stage begins, and what to call after each step.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[figures]}", markup=False),
        console=console, refresh_per_second=3, disable=not shown or not console.is_terminal,
        transient=True,
    )  # fmt: skip
    task = bar.add_task("starting", total=None, figures="")

    def watch(record: Record, total: int) -> None:
        done = record.step + 1
        figures = _figures(record, target)
        bar.update(task, completed=done, total=total, figures=figures)
        tenth = done * 10 // total > record.step * 10 // total
        if shown and not console.is_terminal and tenth:
            note(f"step {done} of {total}: {figures}")

    interrupts.spinning = not bar.disable
    try:
        with bar:
            yield lambda words: bar.update(task, description=words), watch
    finally:
        interrupts.spinning = False


def _figures(record: Record, target: float | None) -> str:
    """A step in one line: thresholds as their range over the blocks."""
    ranges = (
        f" {kind} {min(values):.3g}-{max(values):.3g}" for kind, values in record.thresholds.items()
    )
    figures = f"loss {record.loss:.3f} accuracy {record.accuracy:.1%} MACs {record.mac_ratio:.3f}"
    return "".join([figures, "" if target is None else f"/{target:g}", *ranges])


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write a report for machines, if a file was asked for."""
    if path is not None:
        from ltmp_export import reports
        from ltmp_export.files import disk

        disk.write_bytes(path, reports.to_json(document).encode())

"""The command run under watch: what must hold whatever it is given.

The exit code is one of METHOD §4's, a failure is one line that begins with "error: ", nothing is
raised past the command, no file appears or changes but the ones asked for, memory and time have
bounds. Where the system tells a process's peak memory (Linux), it is measured for every case.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import typer.main
from hypothesis import HealthCheck, Phase, Verbosity, settings
from ltmp_cli.main import app
from ltmp_cli.terminal import reporting_errors
from typer.testing import CliRunner

from ltmp_export.files import memory

LIMIT = 0.05  # GiB that the weights or images of one file may take
GROWTH = 300  # MiB that a case may take beyond what the process has
PATIENCE = 20  # seconds for a case that takes milliseconds on an idle machine
SHARES = 6790  # of all parts together
DEFAULT = 1200  # cases
CODES = (0, 1, 2, 3, 4)

asked = int(os.environ.get("LTMP_FUZZ", "0"))
wanted = asked or DEFAULT
ran: Counter[str] = Counter()  # cases by part
codes: Counter[str] = Counter()  # by part and exit code
largest: Counter[str] = Counter()  # growth in MiB by part

_RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class HangError(BaseException):
    """A case takes too long; no `except Exception` of anybody's stops it."""


def part(share: int) -> settings:
    """Settings of a part that gets this share of the default run, which is the same every time.

    `LTMP_FUZZ=100000` asks for so many cases in all, drawn anew each time.
    """
    return settings(
        max_examples=max(1, share * wanted // SHARES),
        derandomize=not asked,
        database=None,
        deadline=None,
        print_blob=True,
        verbosity=Verbosity.normal,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    raised: BaseException | None = None


@dataclass
class Workplace:
    """A folder with files, which every case finds as they were.

    Attributes:
        folder: Everything in it is watched; commands run in its subfolder `here`.
        files: Content by name inside `here`.
        name: Of the part.
    """

    folder: Path
    files: Mapping[str, bytes]
    name: str
    command: Any = field(default_factory=lambda: typer.main.get_command(app))

    def __post_init__(self) -> None:
        self._pristine: Mapping[str, bytes | None] = {}
        self._restore()

    @property
    def here(self) -> Path:
        """Where commands run."""
        return self.folder / "here"

    def put(self, files: Mapping[str, bytes]) -> None:
        """Other content from now on for some files, or new ones."""
        self.files = {**self.files, **files}
        for name, content in files.items():
            path = self.here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._pristine = self._seen()

    def ltmp(self, arguments: Sequence[str], outputs: Sequence[str] = ()) -> Outcome:
        """Run the command in `here` and judge it; `outputs` may appear or change if it succeeds."""
        paths = [Path(os.path.realpath(self.here / name)) for name in outputs]
        given = ["--memory-limit", str(LIMIT), *arguments]
        return self._watched(lambda: self.command.main(args=given, prog_name="ltmp"), paths)

    def call(self, function: Callable[[], object]) -> Outcome:
        """The same for a function of the package, as if a command did nothing else."""

        def run() -> None:
            with memory.memory_limit(LIMIT):
                reporting_errors(function)()

        return self._watched(run, [])

    def _watched(self, run: Callable[[], object], outputs: Sequence[Path]) -> Outcome:
        ran[self.name] += 1
        before = _reset_peak()
        try:
            with _alarm():
                outcome = _isolated(run)
            grown = _peak() - before
            judge(outcome)
            if self._seen() != self._pristine:
                self._require_only(outputs if outcome.code in (0, 1) else [])
        finally:
            self._restore()
        codes[f"{self.name}: exit {outcome.code}"] += 1
        largest[self.name] = max(largest[self.name], grown)
        assert grown <= GROWTH, f"took {grown} MiB"
        return outcome

    def _seen(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for top, folders, names in os.walk(os.path.realpath(self.folder)):
            paths = [Path(top, name) for name in (*folders, *names)]
            found |= {str(path): path.read_bytes() if path.is_file() else None for path in paths}
        return found

    def _require_only(self, outputs: Sequence[Path]) -> None:
        """No file but these has appeared, changed or gone."""
        seen, allowed = self._seen(), {str(path) for path in outputs}
        other = [
            path
            for path in sorted({*seen, *self._pristine})
            if seen.get(path, b"-") != self._pristine.get(path, b"-") and path not in allowed
        ]
        assert not other, f"left behind or changed: {other}"

    def _restore(self) -> None:
        if self._pristine and self._seen() == self._pristine:
            return
        self.here.mkdir(parents=True, exist_ok=True)
        for path in (*self.folder.iterdir(), *self.here.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path) if path != self.here else None
            else:
                path.unlink()
        (self.here / "gone").symlink_to("nowhere")
        (self.here / "loop").symlink_to("loop")
        if hasattr(os, "mkfifo"):
            os.mkfifo(self.here / "fifo")
        self.put(self.files)


def _isolated(run: Callable[[], object]) -> Outcome:
    """As `CliRunner.invoke`, which builds the command anew each time: longer than most cases."""
    code, raised = 0, None
    with CliRunner().isolation() as (stdout, stderr, _):
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except typer.Exit as end:
            code = end.exit_code
        except Exception as err:
            raised = err
        sys.stdout.flush()
        sys.stderr.flush()
        return Outcome(code, stdout.getvalue().decode(), stderr.getvalue().decode(), raised)


def judge(outcome: Outcome) -> None:
    """Check exit code and words of a command."""
    if outcome.raised is not None and not isinstance(outcome.raised, SystemExit):
        raise AssertionError("".join(traceback.format_exception(outcome.raised)))
    assert outcome.code in CODES, outcome
    both = outcome.stdout + outcome.stderr
    assert "Traceback" not in both, both
    assert not _RAW.search(both), f"control characters: {both!r}"
    if outcome.code > 1:
        assert outcome.stdout == "", outcome
        lines = outcome.stderr.rstrip("\n").split("\n")
        told = len(lines) == 1 and lines[0].startswith("error: ")
        usage = outcome.code == 2 and lines[0].startswith(("Usage: ", "╭─ Error"))
        assert told or usage, outcome


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError(f"still running after {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _reset_peak() -> int:
    """MiB in use; from now on `_peak` tells the most in use since."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) >> 10
    return 0

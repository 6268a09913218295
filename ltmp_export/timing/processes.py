"""Processes of contenders, as their parent sees them: started, asked, always ended.

They are started with `subprocess`, not `multiprocessing`: a script that calls `bench` at its top
level is not run again in a child.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import ltmp_export
from ltmp_export import errors
from ltmp_export.errors import ExportError, InputError, LtmpError, UnavailableError
from ltmp_export.files import undo
from ltmp_export.files.memory import current_memory_limit
from ltmp_export.files.workplace import end

# Isolated (-I), nothing in the current folder can stand in for a module; the modules' folders are
# the parent's. An interrupt is the parent's business.
_BOOT = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "import json, sys\n"
    "start = json.loads(sys.stdin.readline())\n"
    "sys.path[:] = start.pop('path')\n"
    "from ltmp_export.files.memory import memory_limit\n"
    "from ltmp_export.timing import worker\n"
    "with memory_limit(start.pop('memory_limit')):\n    worker.main(start)\n"
)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[None]:
    """While something is written to a temporary folder.

    Raises:
        InputError: The system refuses.
    """
    try:
        yield
    except OSError as err:
        raise InputError(
            f"the temporary folder {folder} does not take the models and images ({err}); name "
            "another with the environment variable TMPDIR"
        ) from err


class Process:
    """A child that is killed at the latest when the `with` block, or the parent, ends.

    Args:
        label: What it runs, for messages.
        start: What it is told first.
        folder: For what it writes on stderr; also its current folder.

    Raises:
        ExportError: The system starts no more processes.
    """

    def __init__(self, label: str, start: Mapping[str, Any], folder: Path) -> None:
        self.label = label
        self._log = folder / f"{secrets.token_hex(6)}.log"
        own = {"path": _search_path(), "memory_limit": current_memory_limit()}
        self._start = dict(start) | own
        self._exit = contextlib.ExitStack()
        try:
            with undo.postponed(), self._log.open("xb") as log:  # no child that nobody knows of
                self._child = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-c", _BOOT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=folder,
                    text=True,
                    encoding="utf-8",
                )
                self._exit.enter_context(undo.undone(partial(end, self._child)))
        except OSError as err:
            raise ExportError(f"no process for {label} can be started: {err.strerror}") from err

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The system's number of the child."""
        return self._child.pid

    def open(self) -> dict[str, Any]:
        """Tell it what it is; its first reply.

        Raises:
            LtmpError: It could not begin.
        """
        return self._exchange(self._start)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One method of `timing.worker.Worker`.

        Raises:
            LtmpError: It failed or died.
        """
        return self._exchange({"do": do, **arguments})

    def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if self._child.stdin is None or self._child.stdout is None:
            raise ValueError("the child was started without pipes")
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise self._death()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._failure(reply["error"], reply["message"])
        return reply

    def _failure(self, kind: str, message: str) -> LtmpError:
        """What the child raised, as the parent's error."""
        message = " ".join(message.split())
        own = getattr(errors, kind, None)
        if own is not None:
            return own(message)  # type: ignore[no-any-return]
        if kind in ("ModuleNotFoundError", "ImportError"):
            return UnavailableError(f"{message}: install it, or ltmp's extra 'side-by-side'")
        return ExportError(f"{self.label} does not run: {message}")

    def _death(self) -> ExportError:
        """Why a child that says nothing is gone."""
        code = self._child.wait()
        written = self._log.read_text(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = f"; its last words: {written[-1]}" if written else ""
        memory = " (out of memory?)" if code == -9 else ""
        return ExportError(f"the process timing {self.label} died, {how}{memory}{last}")

    def close(self) -> None:
        """End it, whatever it does."""
        self._exit.close()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._child.wait()


def _search_path() -> list[str]:
    """Where the parent finds modules, without the current folder, and this package last."""
    home = str(Path(ltmp_export.__path__[0]).resolve().parent)
    found = [str(Path(entry).resolve()) for entry in sys.path if entry]
    return [*found, home]

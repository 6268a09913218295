"""Temporary folders and child processes, gone however this process ends (`undo`)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import undo


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, gone at the end.

    Raises:
        InputError: None can be made.
    """
    try:
        with undo.postponed():  # it tries folders by writing to them
            place = tempfile.gettempdir()
    except OSError as err:
        raise InputError(
            f"no temporary folder to work in ({err.strerror}); name one with the environment "
            "variable TMPDIR"
        ) from err
    folder = Path(place).resolve() / f"ltmp-{secrets.token_hex(6)}"
    with undo.undone(partial(shutil.rmtree, folder, ignore_errors=True)):
        try:
            folder.mkdir(mode=0o700)
        except OSError as err:
            raise InputError(
                f"the temporary folder {folder} cannot be made ({err.strerror}); name another "
                "place with the environment variable TMPDIR"
            ) from err
        yield folder


def end(child: subprocess.Popen[str]) -> None:
    """Kill a child and see it gone.

    Not by `Popen.wait`: where a signal handler calls this, that may hold its lock already.
    """
    child.kill()
    if child.returncode is None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)


def end_all(leader: subprocess.Popen[str]) -> None:
    """Kill a child that leads a session of its own, with all that it started there."""
    if leader.returncode is None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
    end(leader)

"""The command in a process of its own, as from a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def command(
    *arguments: str | Path,
    cwd: Path,
    largest_file: int | None = None,
    code: str | None = None,
    env: Mapping[str, str] | None = None,
    own_session: bool = False,
) -> subprocess.Popen[str]:
    """Start it.

    Args:
        arguments: What is typed after `ltmp`.
        cwd: Where.
        largest_file: Bytes at which the system cuts a file.
        code: What to run in its place, with these arguments.
        env: Its environment; by default this one.
        own_session: With its children in a group of its own, which can be signalled as one.
    """

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background
        if largest_file is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    what = ["-m", "ltmp_cli"] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *what, *map(str, arguments)], cwd=cwd, text=True, env=env,
        start_new_session=own_session,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,
    )  # fmt: skip


def said(stderr: str) -> list[str]:
    """What it says beside warnings."""
    return [line for line in stderr.splitlines() if not line.startswith("warning: ")]

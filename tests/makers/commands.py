"""Commands as a user types them: in this process, and in one of their own as from a terminal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltmp_cli.main import app
from typer.testing import CliRunner, Result


def ltmp(*arguments: object) -> Result:
    """Run the command in this process, with these arguments as text."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeeded(result: Result) -> str:
    """What it printed, with exit code 0."""
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(result: Result, message: str, code: int = 2) -> None:
    """One clear line on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert result.stdout == ""


def left(folder: Path) -> list[str]:
    """All files in a folder, by their paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


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


def run_without(heavy: set[str], commands: Sequence[Sequence[str]], code: int = 0) -> str:
    """What commands print in a process of their own that must not import any of `heavy`.

    Args:
        heavy: Names of modules.
        commands: What is typed after `ltmp`, each.
        code: The exit code of all of them.
    """
    script = (
        "import sys\n"
        "from ltmp_cli.main import app\n"
        f"for command in {[list(command) for command in commands]}:\n"
        "    try:\n        app(command)\n"
        f"    except SystemExit as done:\n        assert (done.code or 0) == {code}, command\n"
        f"found = {heavy} & set(sys.modules)\n"
        "sys.exit(f'loaded {found}' if found else 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr

"""Signals: the command ends at once, in one line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ltmp_export import export
from ltmp_export.files import undo
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import command, said

ROOT = Path(__file__).parent.parent.parent
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a user stands, with a checkpoint and an old model."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    (tmp_path / "model.onnx").write_bytes(b"old")
    return tmp_path


def stopped(process: subprocess.Popen[str], sent: str) -> None:
    """It ended by this signal, and said so in one line."""
    stdout, stderr = process.communicate(timeout=120)
    words = ["interrupted"] if sent == "SIGINT" else []
    assert (process.returncode, stdout, said(stderr)) == (CODES[sent], "", words)


AMID_THE_WRITE = """
import os, signal, sys
from ltmp_cli.__main__ import main
from ltmp_export.files import disk

def write_half(path, parts):
    path.write_bytes(next(iter(parts))[:1000])
    for _ in range(3):
        os.kill(os.getpid(), number)
    raise SystemExit("it went on")

disk.write_new = write_half
number = signal.Signals[sys.argv.pop(1)]
main()
"""


def test_an_export_that_is_stopped_amid_its_write(folder: Path) -> None:
    sent = "SIGTERM"
    process = command(sent, "export", "ckpt.pth.tar", "--no-check", cwd=folder, code=AMID_THE_WRITE)
    stopped(process, sent)
    assert names(folder) == ["ckpt.pth.tar", "model.onnx"]
    assert (folder / "model.onnx").read_bytes() == b"old"


def test_a_bench_that_is_stopped(folder: Path) -> None:
    """While its children measure; one signal goes to them, too, as from a terminal."""
    (folder / "tmp").mkdir()
    export(folder / "ckpt.pth.tar", folder / "model.onnx", check=False)
    process = command(
        "bench", "model.onnx", "--iterations", "1000000", "--samples", "2",
        cwd=folder, env=os.environ | {"TMPDIR": str(folder / "tmp")}, own_session=True,
    )  # fmt: skip
    while len(list((folder / "tmp").glob("ltmp-*/*.log"))) < 3:  # profile, model, dense
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    stopped(process, "SIGINT")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert list((folder / "tmp").glob("ltmp-*")) == []


@pytest.mark.parametrize(
    ("sent", "delay"),
    [("SIGTERM", 0.8), ("SIGHUP", 2.5), ("SIGINT", 3.5)],
)
def test_an_export_that_is_stopped(folder: Path, sent: str, delay: float) -> None:
    """While it imports, reads, writes the graph or compares: wherever this machine is by then."""
    process = command("export", "ckpt.pth.tar", cwd=folder)
    time.sleep(delay)
    for _ in range(2):  # the second must not disturb what the first one began
        process.send_signal(signal.Signals[sent])
    if process.wait(timeout=120) == 0:
        process.communicate()  # closes its pipes
        assert (folder / "model.onnx").stat().st_size > 4_000_000
    else:
        stopped(process, sent)
        assert (folder / "model.onnx").read_bytes() == b"old"
    assert names(folder) == ["ckpt.pth.tar", "model.onnx"]


def at_every_line(what: str, stop: str, how: str, folder: Path) -> list[dict[str, Any]]:
    """How the work of `tests.makers.interrupted` ends with a signal at each of its lines."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.makers.interrupted", what, stop, how, str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stderr.split()) <= {"interrupted"}, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("stop", "how", "code"),
    [("SIGTERM", "command", 143), ("SIGINT", "library", 130)],
)
def test_a_signal_at_every_line_of_writing(tmp_path: Path, stop: str, how: str, code: int) -> None:
    *stopped, done = at_every_line("write", stop, how, tmp_path)
    assert (done["code"], done["value"], done["files"]) == (0, 2.0, 2)
    assert len(stopped) > 200
    assert {(one["code"], one["files"]) for one in stopped} == {(code, 2)}
    assert [one["value"] for one in stopped] == sorted(one["value"] for one in stopped)
    assert {one["value"] for one in stopped} == {1.0, 2.0}


def test_a_signal_at_every_line_of_starting_a_child(tmp_path: Path) -> None:
    *stopped, done = at_every_line("bench", "SIGTERM", "command", tmp_path)
    assert done["code"] == 0
    assert len(stopped) > 60
    assert {(one["code"], one["files"], one["orphans"]) for one in stopped} == {(143, 0, False)}


def test_what_is_begun_is_undone_once_at_the_latest_at_the_exit() -> None:
    undone: list[str] = []

    def attempt() -> None:
        undone.append("try")
        if len(undone) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), undo.undone(attempt):
        pass
    undo.undo_all()
    undo.undo_all()
    assert undone == ["try", "try"]


def test_signals_wait_for_the_end_of_a_block() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append("stopped"))
    try:
        with undo.postponed():
            signal.raise_signal(signal.SIGTERM)
            seen.append("whole")
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["whole", "stopped", "stopped"]


def test_signals_that_are_ignored_stay_so() -> None:
    """As under nohup."""
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from ltmp_cli.interrupts import end_on_termination\n"
        "end_on_termination()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('on', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (143, "on\n", "")

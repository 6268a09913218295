"""Writing is whole: the old file stays or the new one is complete, and nothing else is left.

Real failures where there can be one: a limit on the size of files, a folder of someone else's, two
writers at once. Signals are in `test_interrupts`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ltmp_cli.main import app
from typer.testing import CliRunner

import ltmp_export
from ltmp_export.errors import InputError
from ltmp_export.files import disk, folders
from ltmp_export.graph import detached
from ltmp_export.model_file import external
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import command, said
from tests.makers.interrupted import large_model, value

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and permissions of POSIX")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of more than 100 kB have their weights beside them."""
    monkeypatch.setattr(detached, "INLINE_LIMIT", 100_000)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_write_replaces_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out"
    disk.write_bytes(path, b"first")
    disk.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path) == ["out", "plain"]


def test_content_of_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_CHUNK", 1000)
    content = os.urandom(12_345)
    disk.write_bytes(tmp_path / "out", content)
    assert (tmp_path / "out").read_bytes() == content


def test_unwritable_targets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    before = names(tmp_path)
    for path, message in {
        tmp_path: "is a directory",
        tmp_path / "no" / "out": "does not exist; make it",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "pipe" / "out": "does not exist; make it|Not a directory",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        with pytest.raises(InputError, match=message):
            disk.write_bytes(path, b"")
    with contextlib.suppress(InputError):  # refused by some versions of Python, replaced by others
        disk.write_bytes(tmp_path / "circle", b"")
    assert names(tmp_path) == before


def test_names_of_the_longest_kind(tmp_path: Path) -> None:
    disk.write_bytes(tmp_path / ("x" * 255), b"content")
    disk.write_bytes(tmp_path / ("é" * 127), b"content")
    assert len(names(tmp_path)) == 2


def test_outputs_must_be_distinct_and_no_inputs(tmp_path: Path) -> None:
    a, b, link = tmp_path / "a", tmp_path / "b", tmp_path / "link"
    a.touch()
    link.symlink_to(a)
    disk.require_outputs([b, tmp_path / "c"], [a])
    with pytest.raises(InputError, match=r"link is the input .*a; choose another"):
        disk.require_outputs([b, link], [a])
    with pytest.raises(InputError, match="b is also the output"):
        disk.require_outputs([b, tmp_path / "." / "b"])


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    disk.write_bytes(link, b"content")
    assert link.is_symlink()
    assert target.read_bytes() == b"content"


class FullDisk(io.FileIO):
    """A file of which so many bytes fit on the disk."""

    room = 0

    def write(self, content: Any) -> int:
        if len(content) > FullDisk.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FullDisk.room -= len(content)
        return super().write(content)


def no_room(*arguments: object, **keywords: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_up(monkeypatch: pytest.MonkeyPatch, stage: str, room: int = 0) -> None:
    """Let the disk be full at a stage of writing."""
    FullDisk.room = room
    if stage == "open":
        monkeypatch.setattr(Path, "open", no_room)
    elif stage == "rename":
        monkeypatch.setattr(os, "replace", no_room)
    else:  # "write", or for what fits into a buffer "close"
        opened = functools.partial(FullDisk, mode="xb")
        monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedWriter(opened(path)))


@pytest.mark.parametrize(
    ("stage", "size"), [("open", 9), ("write", 100_000), ("close", 9), ("rename", 9)]
)
def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, size: int
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    fill_up(monkeypatch, stage)
    with pytest.raises(InputError, match="cannot write .*out: No space left on device; choose"):
        disk.write_bytes(path, bytes(size))
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("stage", "room"), [("open", 0), ("write", 0), ("write", 150_000), ("write", 200_000)]
)
def test_a_full_disk_under_a_large_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, room: int
) -> None:
    """With 200 kB left its weights fit, and its graph does not."""
    path = tmp_path / "model.onnx"
    external.write_model(path, large_model(1.0))
    before = names(tmp_path)
    with monkeypatch.context() as changed:
        fill_up(changed, stage, room)
        with pytest.raises(InputError, match=r"cannot write .*model.onnx: No space left"):
            external.write_model(path, large_model(2.0))
    assert (names(tmp_path), value(path)) == (before, 1.0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("successes", [0, 1])
@pytest.mark.parametrize("new", [1.0, 2.0])
def test_a_rename_that_fails_under_a_large_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successes: int, new: float
) -> None:
    """After the weights were renamed already: those of the same content are the old model's."""
    path = tmp_path / "model.onnx"
    external.write_model(path, large_model(1.0))
    before, replace, done = names(tmp_path), os.replace, []

    def sometimes(source: Path, target: Path) -> None:
        done.append(target)
        if len(done) > successes:
            no_room()
        replace(source, target)

    with monkeypatch.context() as changed:
        changed.setattr(os, "replace", sometimes)
        with pytest.raises(InputError, match="No space left"):
            external.write_model(path, large_model(new))
    assert (names(tmp_path), value(path)) == (before, 1.0)


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder that can be read and not written, by whoever runs this."""
    folder = Path(tempfile.mkdtemp()).resolve()
    (folder / "model.onnx").write_bytes(b"old")
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_read_only_folder(others_folder: Path) -> None:
    path = others_folder / "model.onnx"
    with pytest.raises(InputError, match="is not writable|Permission denied"):
        disk.write_bytes(path, b"new")
    with pytest.raises(InputError, match="is not writable|Permission denied"):
        external.write_model(path, large_model(1.0))
    with pytest.raises(InputError, match="is not writable|Permission denied"):
        folders.write(others_folder / "repro", [("a", b"a")])
    assert path.read_bytes() == b"old"
    assert names(others_folder) == ["model.onnx"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a user stands, with a checkpoint and an old model."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    (tmp_path / "model.onnx").write_bytes(b"old")
    return tmp_path


def test_an_export_that_fails_amid_its_write(folder: Path) -> None:
    """The system cuts the file at 1 MB."""
    process = command("export", "ckpt.pth.tar", "--no-check", cwd=folder, largest_file=1_000_000)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert said(stderr) == ["error: cannot write model.onnx: File too large; choose another output"]
    assert names(folder) == ["ckpt.pth.tar", "model.onnx"]
    assert (folder / "model.onnx").read_bytes() == b"old"


WRITERS = """
    import sys
    from pathlib import Path
    from ltmp_export.graph import detached
    from ltmp_export.model_file import external
    from tests.makers.interrupted import large_model

    detached.INLINE_LIMIT = 100_000
    first, path = float(sys.argv[1]), Path(sys.argv[2])
    for number in range(100):
        if number % 10 == 9:
            detached.INLINE_LIMIT = 2**31  # as one file
        external.write_model(path, large_model(first + number))
        detached.INLINE_LIMIT = 100_000
"""


def run_at_once(script: str, arguments: Sequence[Sequence[str]], cwd: Path = ROOT) -> None:
    code = textwrap.dedent(script)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, *given], cwd=cwd, stderr=subprocess.PIPE, text=True
        )
        for given in arguments
    ]
    for process in running:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr


def test_writers_at_once_leave_one_complete_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    run_at_once(WRITERS, [(start, str(path)) for start in ("1000", "2000", "3000")])
    last = value(path)
    assert last in (1099, 2099, 3099)
    run_at_once(WRITERS.replace("range(100)", "range(99)"), [("5000", str(path))])
    with_data = names(tmp_path)
    assert value(path) == 5098
    assert len(with_data) == 2
    assert with_data[1].endswith(".data")


# One process that becomes two: importing takes longer than all that is tried.
EXPORTS = """
    import os
    import sys
    import timm
    import ltmp_export
    import ltmp_export.commands.export
    from ltmp_export.graph import detached

    _, mine, limit, others, others_limit = sys.argv
    other = os.fork()
    path, detached.INLINE_LIMIT = (mine, int(limit)) if other else (others, int(others_limit))
    checkpoint = ltmp_export.load_checkpoint(path)
    for _ in range(5):
        ltmp_export.export(checkpoint, "model.onnx", check=False)
    if other:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_exports_at_once_leave_one_complete_model(
    folder: Path, content: dict[str, Any], write: Callable[..., Path]
) -> None:
    """One of them as one file, the other as two."""
    content["state_dict"]["blocks.1.prune_masker.threshold"] = torch.tensor([0.02])
    second = write(content)
    run_at_once(EXPORTS, [("ckpt.pth.tar", "1000000", str(second), "100000000")], folder)
    facts = ltmp_export.inspect(folder / "model.onnx")
    assert facts["thresholds"]["prune"][1] in (pytest.approx(0.02), pytest.approx(0.006371, 1e-3))
    data = [name for name in names(folder) if name.endswith(".data")]
    others = {"ckpt.pth.tar", "model.onnx", second.name}
    assert set(names(folder)) == others | set(data)
    assert len(data) <= 1


@pytest.mark.parametrize(
    "output", ["ckpt.pth.tar", "./ckpt.pth.tar", "link", "sub/../ckpt.pth.tar"]
)
def test_an_output_that_is_the_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("ckpt.pth.tar")
    before = names(folder)
    result = CliRunner().invoke(app, ["export", "ckpt.pth.tar", "-o", output])
    assert result.exit_code == 2
    assert "is the input ckpt.pth.tar; choose another output" in result.stderr
    assert (folder / "ckpt.pth.tar").read_bytes() == DIGITS_LTMP.read_bytes()
    assert names(folder) == before


def test_a_hard_link_to_the_input_leaves_the_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    os.link("ckpt.pth.tar", "other.onnx")
    result = CliRunner().invoke(app, ["export", "ckpt.pth.tar", "--no-check", "-o", "other.onnx"])
    assert result.exit_code == 0, result.stderr
    assert (folder / "ckpt.pth.tar").read_bytes() == DIGITS_LTMP.read_bytes()
    assert ltmp_export.inspect(folder / "other.onnx")["kind"] == "model"


@pytest.mark.parametrize("stage", ["open", "write", "rename"])
def test_a_folder_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "new"):
        with monkeypatch.context() as changed:
            fill_up(changed, stage, room=20)
            changed.setattr(Path, "replace", os.replace if stage != "rename" else no_room)
            with pytest.raises(InputError, match="No space left on device; choose another folder"):
                folders.write(target, [("a", b"a"), ("b", bytes(100_000))])
    assert names(tmp_path) == ["empty"]
    assert names(tmp_path / "empty") == []
    folders.write(tmp_path / "empty", [("a", b"a")])
    folders.write(tmp_path / "new", [("b", b"b")], fresh=True)
    assert names(tmp_path) == ["empty", "new"]
    with pytest.raises(InputError, match="cannot write"):  # another one was there first
        folders.write(tmp_path / "new", [("c", b"c")], fresh=True)
    assert names(tmp_path / "new") == ["b"]

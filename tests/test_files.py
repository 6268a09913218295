"""What files are, where outputs may go, and writing them whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ltmp_export import files
from ltmp_export.errors import InputError


def test_write_replaces_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out"
    files.write_bytes(path, b"first")
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "plain"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unwritable_targets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in {
        tmp_path: "is a directory",
        tmp_path / "no" / "out": "does not exist; make it",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        with pytest.raises(InputError, match=message):
            files.write_bytes(path, b"")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_outputs_must_be_distinct_and_no_inputs(tmp_path: Path) -> None:
    a, b, link = tmp_path / "a", tmp_path / "b", tmp_path / "link"
    a.touch()
    link.symlink_to(a)
    files.require_outputs([b, tmp_path / "c"], [a])
    with pytest.raises(InputError, match=r"link is the input .*a; choose another"):
        files.require_outputs([b, link], [a])
    with pytest.raises(InputError, match="b is also the output"):
        files.require_outputs([b, tmp_path / "." / "b"])


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    files.write_bytes(link, b"content")
    assert link.is_symlink()
    assert target.read_bytes() == b"content"


def test_what_cannot_be_read_is_told_before(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, message in {
        "pipe": "is not a regular file; expected a file",
        "x" * 300: "File name too long",
        "no": "does not exist",
        ".": "is a directory",
        "empty": "is empty",
    }.items():
        with pytest.raises(InputError, match=message):
            files.require_file(tmp_path / name, "a file")


def test_onnx_is_told_from_checkpoints_by_content(tmp_path: Path) -> None:
    for length in range(1, 40):  # some headers begin with the byte an ONNX file begins with
        save_file({"a" * length: torch.zeros(1)}, tmp_path / "model.onnx")
        assert not files.looks_like_onnx(tmp_path / "model.onnx")
    torch.save({}, tmp_path / "model.onnx")
    assert not files.looks_like_onnx(tmp_path / "model.onnx")
    (tmp_path / "model").write_bytes(b"\x08\x08\x12\x04ltmp")
    assert files.looks_like_onnx(tmp_path / "model")

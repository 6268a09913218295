"""What files are. How they are written is in `test_writing`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ltmp_export.errors import InputError
from ltmp_export.files import disk


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
            disk.require_file(tmp_path / name, "a file")


def test_onnx_is_told_from_checkpoints_by_content(tmp_path: Path) -> None:
    for length in range(1, 40):  # some headers begin with the byte an ONNX file begins with
        save_file({"a" * length: torch.zeros(1)}, tmp_path / "model.onnx")
        assert not disk.looks_like_onnx(tmp_path / "model.onnx")
    torch.save({}, tmp_path / "model.onnx")
    assert not disk.looks_like_onnx(tmp_path / "model.onnx")
    (tmp_path / "model").write_bytes(b"\x08\x08\x12\x04ltmp")
    assert disk.looks_like_onnx(tmp_path / "model")

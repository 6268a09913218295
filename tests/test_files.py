"""Reading safely and writing whole."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ltmp_export import files
from ltmp_export.errors import InputError


class Hostile:
    """Unpickling this runs a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("wrapped", [True, False])
def test_hostile_pickle_is_refused_by_name_and_not_run(tmp_path: Path, wrapped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    if wrapped:
        torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Hostile(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    with pytest.raises(InputError, match="is refused: it asks to load .*system"):
        files.read_weights(path)
    assert not mark.exists()


def test_hostile_pickle_of_a_newer_protocol_is_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Hostile(mark), protocol=4))
    with pytest.raises(InputError, match="is refused: it holds pickled objects"):
        files.read_weights(path)
    assert not mark.exists()


def test_namespace_is_the_one_class_allowed(tmp_path: Path) -> None:
    path = tmp_path / "args.pth"
    torch.save({"args": argparse.Namespace(model="ltp_x"), "state_dict": {}}, path)
    assert files.read_weights(path)["args"].model == "ltp_x"


def truncated() -> bytes:
    whole = Path(files.__file__).parent / "fixtures" / "digits_ltmp.pth.tar"
    return whole.read_bytes()[:1_000_000]


DAMAGED = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am no checkpoint\n" * 9, "damaged or not"),
    "zeros": (bytes(4096), "damaged or not"),
    "zip": (b"PK\x03\x04" + bytes(100), "damaged or not"),
    "safetensors header only": (b"\x40" + bytes(7) + b"{" + b"x" * 80, "safetensors"),
    "truncated": (truncated(), "damaged or not"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        files.read_weights(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        files.read_weights(tmp_path / "nothing.pth")
    with pytest.raises(InputError, match="is a directory"):
        files.read_weights(tmp_path)


def test_top_level_must_be_a_mapping(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list"):
        files.read_weights(tmp_path / "list.pth")


def test_safetensors_with_and_without_arch(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, tmp_path / "bare")
    assert torch.equal(files.read_weights(tmp_path / "bare")["a"], tensors["a"])
    save_file(tensors, tmp_path / "named", metadata={"arch": "ltp_x"})
    assert files.read_weights(tmp_path / "named")["arch"] == "ltp_x"


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


def test_special_files_are_no_checkpoints(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        files.read_weights(tmp_path / "pipe")
    with pytest.raises(InputError, match="File name too long"):
        files.read_weights(tmp_path / ("x" * 300))


def test_onnx_is_told_from_checkpoints_by_content(tmp_path: Path) -> None:
    for length in range(1, 40):  # some headers begin with the byte an ONNX file begins with
        save_file({"a" * length: torch.zeros(1)}, tmp_path / "model.onnx")
        assert not files.looks_like_onnx(tmp_path / "model.onnx")
    torch.save({}, tmp_path / "model.onnx")
    assert not files.looks_like_onnx(tmp_path / "model.onnx")
    (tmp_path / "model").write_bytes(b"\x08\x08\x12\x04ltmp")
    assert files.looks_like_onnx(tmp_path / "model")

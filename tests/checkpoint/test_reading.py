"""Reading PyTorch and safetensors files: what PyTorch itself reads is the judge."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltmp_export.checkpoint.containers.elements import BY_NAME, FLOATS, ElementType
from ltmp_export.checkpoint.containers.known import PickleError
from ltmp_export.checkpoint.containers.pickles import load
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor
from ltmp_export.checkpoint.containers.weights import open_weights
from ltmp_export.errors import InputError
from tests.conftest import DIGITS_LTMP, FIXTURES

EVERYTHING: dict[str, Any] = {
    "float32": torch.randn(3, 4),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(2, 3).bfloat16(),
    "float64": torch.randn(2).double(),
    "integers": torch.arange(5),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "bools": torch.tensor([True, False]),
    "transposed": torch.randn(3, 4).t(),
    "part of a storage": torch.randn(10)[3:7],
    "expanded": torch.randn(3, 1).expand(3, 4),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "state_dict": torch.nn.Linear(2, 3).state_dict(),
    "namespace": argparse.Namespace(lr=0.1, name="x", nothing=None, nested=argparse.Namespace(a=1)),
    "path": pathlib.Path("/a/b"),
    "numpy float": np.float64(1.5),
    "numpy float32": np.float32(1.25),
    "numpy integer": np.int64(-3),
    "numpy bool": np.bool_(True),
    "ordered": collections.OrderedDict(a=1, b=[2, (3,)]),
    "set": {1, 2},
    "frozenset": frozenset(["x"]),
    "text": "ä→\n",
    "raw": b"\x00\xff",
    "numbers": [0, -1, 255, 65536, 2**40, -(2**62), 1.5, float("inf"), True, False, None],
    "size": torch.Size([1, 2]),
    "device": torch.device("cuda:1"),
    "dtype": torch.float16,
}


def as_read(value: Any) -> Any:
    """What PyTorch gives, in the plain values that are read here."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: as_read(inner) for key, inner in value.items()}
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**as_read(vars(value)))
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (pathlib.Path, torch.device)):
        return str(value)
    if isinstance(value, torch.dtype):
        return BY_NAME[str(value).removeprefix("torch.")]
    return value


def same(expected: Any, found: Any) -> bool:
    if isinstance(found, StoredTensor):
        assert (found.shape, found.dtype.torch) == (expected.shape, expected.dtype)
        if found.dtype in FLOATS and found.numel:
            assert found.number() == expected.flatten()[0].item()
        tensor = found.read()
        return bool(tensor.dtype == expected.dtype) and torch.equal(tensor, expected)
    if isinstance(found, dict):
        return expected.keys() == found.keys() and all(same(expected[k], found[k]) for k in found)
    if isinstance(found, argparse.Namespace):
        return same(vars(expected), vars(found))
    if isinstance(found, ElementType):
        return bool(expected == found)
    if isinstance(found, pathlib.PurePath):
        return bool(expected == str(found))
    return bool(type(expected) is type(found) and expected == found)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_everything_that_is_allowed_is_read_as_pytorch_reads_it(
    tmp_path: Path, zipped: bool, protocol: int
) -> None:
    path = tmp_path / "all.pt"
    torch.save(EVERYTHING, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = open_weights(path)
    for key, expected in torch.load(path, weights_only=False).items():
        assert same(as_read(expected), found[key]), key


def test_the_authors_files(tmp_path: Path) -> None:
    for path in (DIGITS_LTMP, *FIXTURES.glob("*.tar")):
        assert same(as_read(torch.load(path, weights_only=False)), open_weights(path)), path


def test_float8_has_a_name_and_no_numbers_are_taken(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "a.pt")
    assert open_weights(tmp_path / "a.pt")["a"].dtype == BY_NAME["float8_e4m3fn"]


def test_element_types_are_pytorchs() -> None:
    """Each name that the installed PyTorch has is of its size; none that it has is forgotten."""
    known = {str(found): found for found in vars(torch).values() if isinstance(found, torch.dtype)}
    for name, found in known.items():
        assert BY_NAME[name.removeprefix("torch.")].itemsize == found.itemsize, name
        assert BY_NAME[name.removeprefix("torch.")].torch is found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_number_of_a_safetensors_file(tmp_path: Path, dtype: torch.dtype) -> None:
    """Read without PyTorch, behind another tensor and metadata."""
    tensors = {"a": torch.arange(7), "b": torch.tensor([0.9, 0.5], dtype=dtype)}
    save_file(tensors, tmp_path / "f", metadata={"x": "y" * 50})
    assert open_weights(tmp_path / "f")["b"].number() == tensors["b"][0].item()
    with pytest.raises(ValueError, match="int64 is no type of floats"):
        open_weights(tmp_path / "f")["a"].number()


def test_tensors_are_read_only_when_asked_for(tmp_path: Path) -> None:
    """What is beside the model, an optimizer for instance, may be damaged or large."""
    torch.save({"a": torch.ones(1000), "b": torch.full((1000,), 7.0)}, tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()
    start = raw.index(np.full(4, 7.0, np.float32).tobytes())
    (tmp_path / "a.pt").write_bytes(raw[:start] + bytes(64) + raw[start + 64 :])
    found = open_weights(tmp_path / "a.pt")
    assert torch.equal(found["a"].read(), torch.ones(1000))
    with pytest.raises(DamagedError, match="Bad CRC-32"):
        found["b"].read()


def truncated() -> bytes:
    return DIGITS_LTMP.read_bytes()[:1_000_000]


def archive(**records: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in records.items():
            made.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), content)
    return buffer.getvalue()


DAMAGED = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am no checkpoint\n" * 9, "damaged or not"),
    "zeros": (bytes(4096), "damaged or not"),
    "zip": (b"PK\x03\x04" + bytes(100), "damaged or not"),
    "safetensors header only": (b"\x40" + bytes(7) + b"{" + b"x" * 80, "safetensors"),
    "truncated": (truncated(), "damaged or not"),
    "a zip of something else": (archive(a=b"x"), "an archive with 0 data.pkl, where PyTorch"),
    "two in one": (archive(a__data_pkl=b"N.", b__data_pkl=b"N."), "an archive with 2 data.pkl"),
    "TorchScript": (
        archive(a__data_pkl=b"N.", a__constants_pkl=b"N."),
        "a TorchScript program; save the model's state_dict",
    ),
    "big-endian": (archive(a__data_pkl=b"N.", a__byteorder=b"big"), "a big-endian machine"),
    "long pickle": (archive(a__data_pkl=bytes(1 << 25)), "its pickle has more than 16 MiB"),
    "nothing in it": (archive(a__data_pkl=b"N."), "holds a NoneType; expected a dictionary"),
    "no storage": (
        archive(a__data_pkl=b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ."),
        "asks to load a storage",
    ),
    "another pickle": (pickle.dumps({"a": 1}), "a pickle, but none that torch.save wrote"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_weights(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


OPCODES = {
    "an unknown opcode": (b"\xff.", "unrecogn?ized|opcode"),
    "no end": (b"N", "exhausted"),
    "an empty stack": (b".", "pop from empty"),
    "items of nothing": (b"(NNu.", "list index|empty|pop"),
    "a call of a value": (b"K\x01)R.", "a call of what cannot be called"),
    "a huge number of bytes": (b"\x8e" + (1 << 60).to_bytes(8, "little") + b"x.", "expected"),
    "a huge place in the memo": (b"Nr\xff\xff\xff\xffg4294967295\n.", ""),
    "a huge integer": (b"\x8b\x00\x10\x00\x00" + b"\x7f" * 4096 + b".", "an integer of"),
    "no Unicode": (b"X\x03\x00\x00\x00\xed\xa0\x80.", "surrogates not allowed"),
    "a nested key": (b"}" + b")" + b"\x85" * 100_000 + b"Ns.", "a tuple as a key"),
    "an extension": (b"\x82\x01.", "opcode EXT1"),
    "a persistent name": (b"Pname\n.", "opcode PERSID"),
}


@pytest.mark.parametrize(("content", "message"), OPCODES.values(), ids=OPCODES.keys())
def test_opcodes_that_no_pickle_of_pytorchs_has(content: bytes, message: str) -> None:
    def no_tensor(claim: Any) -> StoredTensor:
        raise AssertionError(claim)

    if not message:
        assert load(io.BytesIO(content), no_tensor) is None
        return
    with pytest.raises(PickleError, match=message):
        load(io.BytesIO(content), no_tensor)


def test_a_pickle_without_end_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltmp_export.checkpoint.containers.pickles.MOST_OPCODES", 1000)
    with pytest.raises(PickleError, match="more than 1000 opcodes"):
        load(
            io.BytesIO(b"(" + b"N" * 2000 + b"t."),
            lambda claim: StoredTensor((), claim.dtype, 0, _none, bytes),
        )


def _none() -> torch.Tensor:
    return torch.zeros(())


def test_claims_beyond_the_storage(tmp_path: Path) -> None:
    """PyTorch would enlarge the storage."""
    torch.save({"a": torch.zeros(3, 5)}, tmp_path / "a.pt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content.count(b"K\x03K\x05\x86") == 1
                content = content.replace(b"K\x03K\x05\x86", b"K\x04K\x05\x86")
            new.writestr(entry.filename, content)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(DamagedError, match=r"claims the shape \(4, 5\) but holds fewer"):
        open_weights(tmp_path / "a.pt")["a"].read()


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_weights(tmp_path / "nothing.pth")
    with pytest.raises(InputError, match="is a directory"):
        open_weights(tmp_path)


def test_a_near_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth.tar").touch()
    with pytest.raises(InputError, match=r"does not exist; .*; did you mean ckpt\.pth\.tar\?"):
        open_weights(tmp_path / "ckpt.pth")


def test_top_level_must_be_a_mapping(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list"):
        open_weights(tmp_path / "list.pth")


def test_safetensors_with_and_without_arch(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.arange(3), "c": torch.ones(2).half()}
    save_file(tensors, tmp_path / "bare")
    found = open_weights(tmp_path / "bare")
    assert torch.equal(found["a"].read(), tensors["a"])
    assert (found["a"].dtype, found["c"].dtype) == (BY_NAME["float32"], BY_NAME["float16"])
    assert found["b"].dtype not in FLOATS
    save_file(tensors, tmp_path / "named", metadata={"arch": "ltp_x"})
    assert open_weights(tmp_path / "named")["arch"] == "ltp_x"

"""Files that try to run code, or to take all memory: refused in one line, and proved not to run."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ltmp_cli.main import app
from safetensors.torch import save as save_safetensors
from typer.testing import CliRunner

from ltmp_export.checkpoint.containers.known import ForbiddenGlobalError, TensorClaim
from ltmp_export.checkpoint.containers.pickles import load
from ltmp_export.checkpoint.containers.stored import StoredTensor
from tests.conftest import DIGITS_LTMP, FIXTURES
from tests.makers.checkpoint_contents import Hostile

EXTENSIONS = (
    ".pt",
    ".pth",
    ".pth.tar",
    ".tar",
    ".bin",
    ".ckpt",
    ".safetensors",
    ".onnx",
    ".npz",
    "",
)


def zipped(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def sequence(*values: Any) -> bytes:
    """The form before PyTorch 1.6: magic number, version, machine, value, keys."""
    return b"".join(pickle.dumps(value, protocol=2) for value in values)


def handmade(opcodes: bytes) -> bytes:
    """A zip archive as PyTorch writes it around any opcodes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", opcodes)
        archive.writestr("x/version", b"3\n")
    return buffer.getvalue()


def tarred(value: Any) -> bytes:
    """The form of PyTorch 0.1."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(value, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def pickled(mark: Path, protocol: int) -> bytes:
    return pickle.dumps({"state_dict": Hostile(mark)}, protocol)


def arrays(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([Hostile(mark)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


WEIGHTS = {"a": torch.zeros(1)}
MAGIC, MACHINE = 0x1950A86A20F9469CFC6C, {"little_endian": True}


def call(mark: Path, *, module: str = "posix", name: str = "system") -> bytes:
    return f"c{module}\n{name}\n(S'touch {mark}'\ntR.".encode()


PAYLOADS: Mapping[str, Callable[[Path], bytes]] = {
    "zip, beside the weights": lambda m: zipped({"state_dict": WEIGHTS, "x": Hostile(m)}),
    "zip, as a weight": lambda m: zipped({"state_dict": {"a": Hostile(m)}}),
    "zip, all": lambda m: zipped(Hostile(m)),
    "zip, in args": lambda m: zipped({"args": argparse.Namespace(model=Hostile(m))}),
    "zip, as a key": lambda m: handmade(b"(" + call(m)[:-1] + b"I1\nd."),
    "zip, eval": lambda m: handmade(
        f"c__builtin__\neval\n(V__import__('pathlib').Path({str(m)!r}).touch()\ntR.".encode()
    ),
    "zip, OBJ": lambda m: handmade(f"(cposix\nsystem\nS'touch {m}'\no.".encode()),
    "zip, INST": lambda m: handmade(f"(S'touch {m}'\niposix\nsystem\n.".encode()),
    "zip, NEWOBJ": lambda m: handmade(
        b"\x80\x02csubprocess\nPopen\n(]" + f"(S'touch'\nS'{m}'\net\x81.".encode()
    ),
    "zip, a method of torch": lambda m: handmade(call(m, module="torch", name="load")),
    "zip, by way of getattr": lambda m: handmade(
        f"c__builtin__\ngetattr\n(cos\npath\nS'os'\ntRp0\n0c__builtin__\ngetattr\n(g0\n"
        f"S'system'\ntR(S'touch {m}'\ntR.".encode()
    ),
    "zip, a state for a class": lambda m: handmade(
        b"cargparse\nNamespace\n" + call(m)[:-1] + b"b."
    ),
    "sequence, value": lambda m: sequence(MAGIC, 1001, MACHINE, {"a": Hostile(m)}, []),
    "sequence, magic": lambda m: sequence(Hostile(m), 1001, MACHINE, {}, []),
    "sequence, machine": lambda m: sequence(MAGIC, 1001, Hostile(m), {}, []),
    "sequence, keys": lambda m: sequence(MAGIC, 1001, MACHINE, {}, [Hostile(m)]),
    "tar": lambda m: tarred(Hostile(m)),
    "npz": arrays,
    **{f"pickle, protocol {p}": partial(pickled, protocol=p) for p in range(6)},
}  # fmt: skip


def test_the_payloads_work(tmp_path: Path) -> None:
    """Where they are unpickled: else not running them would prove nothing."""
    for number, protocol in enumerate(range(6)):
        mark = tmp_path / f"mark{number}"
        pickle.loads(PAYLOADS[f"pickle, protocol {protocol}"](mark))
        assert mark.exists()
    for name in ("zip, all", "zip, beside the weights", "zip, in args", "sequence, value"):
        mark = tmp_path / name.replace(" ", "").replace(",", "")
        torch.load(io.BytesIO(PAYLOADS[name](mark)), weights_only=False)
        assert mark.exists(), name
    np.load(io.BytesIO(arrays(tmp_path / "array")), allow_pickle=True)["images"]
    assert (tmp_path / "array").exists()
    for name in ("eval", "OBJ", "INST", "by way of getattr"):
        archive = zipfile.ZipFile(io.BytesIO(PAYLOADS[f"zip, {name}"](tmp_path / name.split()[-1])))
        pickle.loads(archive.read("x/data.pkl"))
        assert (tmp_path / name.split()[-1]).exists(), name


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_no_payload_runs_whatever_its_name_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["export", str(DIGITS_LTMP), "--no-check"]).exit_code == 0
    mark, evil = tmp_path / "mark", tmp_path / f"evil{extension}"
    thresholds = str(FIXTURES / "digits_ltp_thresholds.pth.tar")
    commands = (
        ["export", str(evil)],
        ["inspect", str(evil)],
        ["check", "model.onnx", str(evil)],
        ["export", thresholds, "--base-checkpoint", str(evil)],
        ["check", "model.onnx", str(DIGITS_LTMP), "--images", str(evil)],
        ["check", str(evil), str(DIGITS_LTMP)],
        ["bench", "model.onnx", "--images", str(evil), "--baseline", "none"],
        ["bench", str(evil)],
    )
    for number, (name, payload) in enumerate(PAYLOADS.items()):
        evil.write_bytes(payload(mark))
        # Each payload meets every command, each command every extension.
        command = commands[(number + EXTENSIONS.index(extension)) % len(commands)]
        result = runner.invoke(app, command)
        where = f"{name}: {' '.join(command)}: {result.stderr}"
        assert not mark.exists(), where
        assert result.exit_code == 2, where
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, where
        assert lines[0].startswith("error: "), where
        assert "allow_pickle" not in lines[0], where


def test_a_refused_class_is_named(tmp_path: Path) -> None:
    for name in ("zip, beside the weights", "sequence, value", "pickle, protocol 2"):
        (tmp_path / "evil.pth").write_bytes(PAYLOADS[name](tmp_path / "mark"))
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / "evil.pth")])
        expected = "evil.pth is refused: it asks to load posix.system, and only tensors, plain"
        assert expected in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        *(
            "builtins eval",
            "builtins getattr",
            "builtins bytearray",
            "builtins complex",
            "os system",
        ),
        *(
            "collections Counter",
            "collections defaultdict",
            "datetime datetime",
            "functools partial",
        ),
        *("torch load", "torch.storage _load_from_bytes", "torch._utils _rebuild_sparse_tensor"),
        *("torch nn.Linear", "torch.nn.modules.linear Linear", "numpy load", "numpy ndarray"),
        *("numpy._core.multiarray _reconstruct", "argparse ArgumentParser", "pathlib os.system"),
        *("omegaconf.dictconfig DictConfig", "__builtin__ object.__class__"),
    ],
)
def test_nothing_but_the_table_is_looked_up(name: str) -> None:
    """Whatever importable thing it is: the table is compared, nothing imported."""
    module, _, attribute = name.partition(" ")
    with pytest.raises(ForbiddenGlobalError, match=f"{module}.{attribute}"):
        load(io.BytesIO(f"c{module}\n{attribute}\n.".encode()), _no_tensor)


def _no_tensor(claim: TensorClaim) -> StoredTensor:
    raise AssertionError(claim)


def bomb(size: int, record: int) -> bytes:
    """A zip of PyTorch's whose one storage unpacks to `record` zeros; a tensor claims `size`."""
    source = io.BytesIO(zipped({"state_dict": {"cls_token": torch.zeros(4)}}))
    made = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("/data/0"):
                with new.open(entry.filename, "w", force_zip64=True) as file:
                    for _ in range(record >> 24):
                        file.write(bytes(1 << 24))
            else:
                number = (size >> 2).to_bytes(8, "little")
                content = content.replace(b"K\x04tq", b"\x8a\x08" + number + b"tq")
                content = content.replace(b"K\x04\x85", b"\x8a\x08" + number + b"\x85")
                new.writestr(entry.filename, content)
    return made.getvalue()


def sparse_safetensors(path: Path, gib: int) -> None:
    """A file with a hole: large in its directory, no blocks on disk."""
    head = save_safetensors({"cls_token": torch.zeros(4)})
    size = gib << 30
    text = f'{{"cls_token":{{"dtype":"F32","shape":[{size >> 2}],"data_offsets":[0,{size}]}}}}'
    assert head
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text.encode())
        file.truncate(8 + len(text) + size)


def bomb_of_arrays(gib: int) -> bytes:
    """An npz of a few MB whose array unpacks to many GiB."""
    buffer = io.BytesIO()
    count = (gib << 30) // (3 * 32 * 32 * 4)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (count, 3, 32, 32)}
        )
        archive.writestr("images.npy", header.getvalue() + bytes(1 << 20))
    return buffer.getvalue()


PEAK = (
    "import json, resource, sys\n"
    "from ltmp_cli.main import app\n"
    "import ltmp_export.commands.inspect, ltmp_export.commands.export, timm.data\n"
    "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "for arguments in json.loads(sys.argv[1]):\n"
    "    before = peak()\n"
    "    try:\n        app(arguments)\n    except SystemExit as end:\n        code = end.code\n"
    "    print(code, (peak() - before) // 1024)\n"
)


def peaks_of(*commands: Sequence[str | Path]) -> list[tuple[int, int, str]]:
    """Exit code, memory taken in MiB beyond all before, and stderr of commands in one process."""
    listed = json.dumps([list(map(str, arguments)) for arguments in commands])
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, listed], capture_output=True, text=True, check=True
    )
    figures = [line.split() for line in ran.stdout.splitlines()]
    told = ran.stderr.splitlines(keepends=True)
    return [
        (int(code), int(taken), words) for (code, taken), words in zip(figures, told, strict=True)
    ]


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """Each would take more than the limit, or claims what is not there."""
    (tmp_path / "claim.pth").write_bytes(bomb(10**18, 1 << 24))
    (tmp_path / "deflated.pth").write_bytes(bomb(1 << 28, 1 << 28))
    sparse_safetensors(tmp_path / "sparse.safetensors", 9)
    (tmp_path / "images.npz").write_bytes(bomb_of_arrays(9))
    model = tmp_path / "m.onnx"
    CliRunner().invoke(app, ["export", str(DIGITS_LTMP), "-o", str(model), "--no-check"])
    cases: tuple[tuple[tuple[str | Path, ...], str], ...] = (
        (("inspect", tmp_path / "claim.pth"), "1 tensors would take 931322574.6 GiB of memory"),
        (("--memory-limit", "0.2", "inspect", tmp_path / "deflated.pth"), "the limit of 0.2 GiB"),
        (("inspect", tmp_path / "sparse.safetensors"), "would take 9.0 GiB of memory, more than"),
        (("check", model, DIGITS_LTMP, "--images", tmp_path / "images.npz"), "take .* GiB of mem"),
    )
    found = peaks_of(*(arguments for arguments, _ in cases))
    for (arguments, message), (code, taken, stderr) in zip(cases, found, strict=True):
        assert (code, len(stderr.splitlines())) == (2, 1), stderr
        assert re.search(message, stderr), stderr
        assert taken < 200, f"{arguments}: {taken} MiB"

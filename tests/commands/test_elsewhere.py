"""Images elsewhere: what an export measures, and web servers that fall silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import onnx
import pytest

from ltmp_export.errors import InputError
from ltmp_export.files import filesystems
from ltmp_export.images import sets
from tests.conftest import DIGITS_LTMP
from tests.makers import packed
from tests.makers.commands import left, ltmp, refused, succeeded
from tests.makers.labelled_images import KIND
from tests.makers.shallow import write_shallow
from tests.makers.stalling import stalling

NORMALISED = ["--mean", "0.5", "--std", "0.5", "--no-check"]
INT8 = ["--precision", "int8", "--calibration-images"]
BUDGET = ["--mode", "static", "--keep-tokens", "auto:max", "--images"]
SILENT = "does not answer for 0.2 s"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint, and shards that stand in a remote folder, too."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_shallow(DIGITS_LTMP, folder / "c.pth.tar")
    for shard in packed.digits_shards(folder / "shards", 8, 2).iterdir():
        with fsspec.open(f"memory://bucket/shards/{shard.name}", "wb") as file:
            file.write(shard.read_bytes())
    yield folder
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.parametrize("measured", [INT8, BUDGET])
def test_an_export_measures_there_what_it_measures_here(
    files: Path, tmp_path: Path, measured: list[str]
) -> None:
    pattern, whole = files / "shards/digits-{000..001}.tar", "memory://bucket/shards"
    for name, images in (("here", pattern), ("there", whole)):
        made = ["-o", tmp_path / f"{name}.onnx", *NORMALISED]
        succeeded(ltmp("export", files / "c.pth.tar", *measured, images, *made))
    here, there = (onnx.load(tmp_path / f"{name}.onnx") for name in ("here", "there"))
    assert here.graph == there.graph
    for images, message in (
        ("memory://bucket/none", "memory://bucket/none cannot be read: it does not exist"),
        (files / "shards/digits-{001..002}.tar", "digits-002.tar does not exist"),
    ):
        told = ltmp("export", files / "c.pth.tar", *measured, images, "-o", tmp_path / "no.onnx")
        refused(told, message)
    assert left(tmp_path) == ["here.onnx", "there.onnx"]


def test_servers_that_fall_silent(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, between pictures, in the middle of one: one line, and nothing is written."""
    monkeypatch.setattr(filesystems, "SILENCE", 0.2)
    shard = {"/s.tar": (files / "shards/digits-000.tar").read_bytes()}
    for answers, leaves, message in (
        (0, False, SILENT),
        (3, False, SILENT),
        (3, True, "broke off"),
    ):
        with stalling(shard, answers, leaves=leaves) as address:
            told = ltmp(
                "export", files / "c.pth.tar", *INT8, f"{address}/s.tar",
                "-o", tmp_path / "m.onnx", *NORMALISED,
            )  # fmt: skip
        refused(told, rf"{address}/s.tar cannot be read: its server {message}.*; try again")
        assert left(tmp_path) == []


def test_a_table_whose_server_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow reads it, and hands on what was said."""
    monkeypatch.setattr(filesystems, "SILENCE", 0.2)
    path = packed.parquet(tmp_path / "t.parquet", [packed.png(1), packed.png(2)], [0, 1])
    with stalling({"/t.parquet": path.read_bytes()}, 2) as address:
        found = sets.held_out(Path(f"{address}/t.parquet"), KIND)
        with pytest.raises(InputError, match=f"t.parquet cannot be read: its server {SILENT}"):
            next(found.batches(1))

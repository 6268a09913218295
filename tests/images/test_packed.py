"""Tar shards, parquet and remote folders give what folders of pictures give."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.files import remote
from ltmp_export.images import inputs, places, sets
from ltmp_export.images.sets import Kind
from tests.makers.labelled_images import HALF, KIND, THREE, labels_of, split, store
from tests.makers.packed import Sample, parquet, png, tar

PICTURES = [png(seed) for seed in range(7)]
LABELS = [0, 2, 1, 1, 0, 2, 2]
SAMPLES: list[Sample] = [
    (f"a/{i}", {"png": picture, "cls": str(label).encode(), "txt": b"unread"})
    for i, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True))
]


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A remote folder."""
    yield "memory://bucket/some"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def put(address: str, content: bytes) -> None:
    with fsspec.open(address, "wb") as file:
        file.write(content)


def folder_of(place: Path) -> Path:
    for number, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        path = place / f"c{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    return place


def of_folder(place: Path) -> tuple[np.ndarray, list[int]]:
    """By their number, whatever their order."""
    found = sets.held_out(folder_of(place), KIND)
    order = np.argsort([int(Path(name).stem) for name in found.names])
    taken = found.take(order)
    return next(taken.batches(99)).numpy(), taken.require_labels().tolist()


def test_the_same_pictures_in_every_form(tmp_path: Path) -> None:
    pixels, labels = of_folder(tmp_path / "folder")
    tar(tmp_path / "t/s-000.tar", SAMPLES[:4])
    tar(tmp_path / "t/s-001.tar", SAMPLES[4:])
    parquet(tmp_path / "p/data/0.parquet", PICTURES[:4], LABELS[:4], ["x", "y", "z"])
    parquet(tmp_path / "p/data/1.parquet", PICTURES[4:], LABELS[4:], ["x", "y", "z"])
    for source in ("t", "t/s-{000..001}.tar", "p", "p/data"):
        found = sets.held_out(tmp_path / source, KIND)
        assert found.require_labels().tolist() == labels == LABELS
        np.testing.assert_array_equal(next(found.batches(99)).numpy(), pixels)
        assert found.files is not None
        assert found.files.tolist() == [0, 0, 0, 0, 1, 1, 1]
        eager = inputs.load_images(tmp_path / source, THREE, HALF, 3)
        np.testing.assert_array_equal(eager.pixels, pixels[[0, 3, 6]])
        assert eager.names == tuple(found.names[i] for i in (0, 3, 6))
        workers = list(found.take(np.array([6, 0, 4])).batches(2, workers=1))
        np.testing.assert_array_equal(np.concatenate(workers), pixels[[6, 0, 4]])


def test_names_tell_what_is_for_training(tmp_path: Path) -> None:
    tar(tmp_path / "x-train-000.tar", SAMPLES[:4])
    tar(tmp_path / "x-val-000.tar", SAMPLES[4:])
    train, others = split(tmp_path)
    assert (len(train), len(others), len(sets.held_out(tmp_path, KIND))) == (4, 3, 3)
    tar(tmp_path / "f/train/0.tar", SAMPLES[:5])
    with pytest.raises(InputError, match="train/ but no val/"):
        sets.held_out(tmp_path / "f", KIND)
    tar(tmp_path / "f/val/0.tar", SAMPLES[5:])
    train, others = split(tmp_path / "f")
    assert (len(train), len(others), len(sets.held_out(tmp_path / "f", KIND))) == (5, 2, 2)
    train, others = split(tmp_path / "f/train")
    assert (len(train), len(others)) == (4, 1)


def test_names_of_classes(tmp_path: Path) -> None:
    """As folders: by the model's own, or in an order."""
    samples = [(str(i), {"png": PICTURES[i], "json": json.dumps({"label": n}).encode()})
               for i, n in enumerate("bca")]  # fmt: skip
    tar(tmp_path / "n.tar", samples)
    assert sets.held_out(tmp_path / "n.tar", KIND).require_labels().tolist() == [1, 2, 0]
    named = Kind(THREE, HALF, ("c", "b", "a"))
    assert list(labels_of(sets.held_out(tmp_path / "n.tar", named)).values()) == [1, 0, 2]
    parquet(tmp_path / "n.parquet", PICTURES[:3], ["b", "c", "a"])
    assert sets.held_out(tmp_path / "n.parquet", named).require_labels().tolist() == [1, 0, 2]
    parquet(tmp_path / "m.parquet", PICTURES[:3], ["b", "c", "d"])
    with pytest.raises(InputError, match="also d; state which is which with --class-map"):
        sets.held_out(tmp_path / "m.parquet", named)


def test_elsewhere(tmp_path: Path, elsewhere: str) -> None:
    pixels, labels = of_folder(tmp_path / "folder")
    for number, picture in enumerate(PICTURES):
        put(f"{elsewhere}/folder/c{LABELS[number]}/{number}.png", picture)
    put(f"{elsewhere}/folder/c0/.hidden", b"")
    put(f"{elsewhere}/folder/read.me", b"")
    put(f"{elsewhere}/shards/s.tar", tar(tmp_path / "s.tar", SAMPLES).read_bytes())
    table = parquet(tmp_path / "s.parquet", PICTURES, LABELS, rows=2).read_bytes()
    put(f"{elsewhere}/table/s.parquet", table)
    for name in ("shards", "shards/s.tar", "table"):
        for address in (f"{elsewhere}/{name}", Path(f"{elsewhere}/{name}")):
            found = sets.held_out(Path(address), KIND)
            assert found.origin == f"{elsewhere}/{name}"
            assert found.require_labels().tolist() == labels
            np.testing.assert_array_equal(next(found.batches(99)).numpy(), pixels)
    assert [len(part) for part in split(Path(f"{elsewhere}/shards"))] == [
        len(part) for part in split(tmp_path / "s.tar")
    ]
    found = sets.held_out(Path(f"{elsewhere}/folder"), KIND)
    assert sorted(found.require_labels().tolist()) == sorted(labels)
    told = (
        f"{elsewhere}/folder: left out 1 hidden file (.hidden), 1 file that is no picture (read.me)"
    )
    assert found.remarks == (told,)
    assert len(inputs.load_images(f"{elsewhere}/folder", THREE, HALF, 2)) == 2
    arrays = store(tmp_path / "a.npz", 4, [0, 1, 2, 2])
    put(f"{elsewhere}/a.npz", arrays.read_bytes())
    far, near = (sets.held_out(Path(at), KIND) for at in (f"{elsewhere}/a.npz", arrays))
    assert (far.sha256, far.names) == (near.sha256, near.names)
    assert len(sets.held_out(Path(f"file://{tmp_path}/folder"), KIND)) == 7
    put(f"{elsewhere}/folder/c0/9.png", b"no picture")
    broken = sets.held_out(Path(f"{elsewhere}/folder"), KIND)
    with pytest.raises(InputError, match=r"memory://bucket/some/folder/c0/9.png is not a readable"):
        list(broken.batches(99))


def test_a_row_may_name_a_picture_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PICTURES[0])
    found = sets.held_out(parquet(tmp_path / "t.parquet", ["0.png"], [1]), KIND)
    assert next(found.batches(1)).shape == (1, 3, 8, 8)
    for place in ("../0.png", "/etc/passwd", ""):
        found = sets.held_out(parquet(tmp_path / "t.parquet", [place], [1]), KIND)
        with pytest.raises(InputError, match="row 0 has neither the bytes"):
            next(found.batches(1))


def damaged(path: Path, at: int) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + 100] = b"\xff" * 100
    path.write_bytes(content)
    return path


def shortened(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def one(**parts: bytes) -> list[Sample]:
    """A shard's content: one key."""
    return [("q", parts)]


PNG = PICTURES[0]
SHARDS: dict[str, tuple[list[Sample], str]] = {
    "empty": ([], "holds no pictures"),
    "label missing": ([*SAMPLES, ("z", {"png": PNG})], "z.png has no label, as 7 others"),
    "picture missing": (one(cls=b"1"), "q has a label and no picture"),
    "no label": (one(png=PNG, cls=b""), "q.cls has the label ''"),
    "no json": (one(png=PNG, json=b"{"), "q.json is no label"),
    "too high": (one(png=PNG, cls=b"3"), "label 3; expected 0 to 2"),
    "two labels": (one(png=PNG, cls=b"1", json=b'{"label": 2}'), "two labels"),
    "two pictures": (one(png=PNG, jpg=PNG, cls=b"1"), "two pictures"),
}
TABLES: dict[str, tuple[list[bytes], list[int | None] | None, str]] = {
    "empty table": ([], [], "holds no pictures"),
    "no such class": (PICTURES, [5] * 7, "label 5; expected 0 to 2"),
    "label null": (PICTURES, [*LABELS[:6], None], r"\[6\] has no label, as 6"),
    "no labels": (PICTURES, None, "has no labels"),
}


def cut(size: int) -> Callable[[Path], Path]:
    return lambda folder: shortened(tar(folder / "a.tar", SAMPLES), size)


def two_kinds(folder: Path) -> Path:
    tar(folder / "a.tar", SAMPLES)
    return parquet(folder / "b.parquet", PICTURES, LABELS).parent


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no tar": (cut(300), "no readable tar"),
    "cut": (cut(900), "no readable tar.*unexpected end"),
    "damaged": (lambda p: damaged(tar(p / "a.tar", SAMPLES), 2048), "no readable tar.*damaged"),
    "a file of many": (
        lambda p: tar(p / "a-0.tar", SAMPLES).with_name("a-{0..2}.tar"),
        "a-1.tar does not exist; expected the 3",
    ),
    "falling": (lambda p: p / "a-{2..0}.tar", "no range of files"),
    "no parquet": (
        lambda p: shortened(parquet(p / "a.parquet", PICTURES, LABELS), 99),
        "no readable parquet",
    ),
    "two kinds": (two_kinds, "holds .parquet and .tar"),
    "nothing there": (lambda p: Path("memory://nothing/x"), "memory://nothing/x does not exist"),
}


@pytest.mark.parametrize("name", [*SHARDS, *TABLES, *FILES])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    if name in SHARDS:
        source, message = tar(tmp_path / "a.tar", SHARDS[name][0]), SHARDS[name][1]
    elif name in TABLES:
        pictures, labels, message = TABLES[name]
        source = parquet(tmp_path / "a.parquet", pictures, labels)
    else:
        source, message = FILES[name][0](tmp_path), FILES[name][1]
    with pytest.raises(InputError, match=message):
        sets.held_out(source, KIND).require_labels()


def test_a_folder_of_pictures_with_an_archive_beside_them_stays_one(tmp_path: Path) -> None:
    folder_of(tmp_path)
    tar(tmp_path / "all.tar", SAMPLES)
    assert places.files(tmp_path) == ()
    assert "1 file that is no picture (all.tar)" in sets.held_out(tmp_path, KIND).remarks[0]


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", PICTURES, LABELS)
    for module, source, extra in (
        ("pyarrow", path, "data"),
        ("s3fs", Path("s3://bucket/some"), "s3"),
        ("gcsfs", Path("gs://bucket/some"), "gcs"),
        ("fsspec", Path("s3://bucket/some"), "data"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(UnavailableError, match=f"extra '{extra}'") as refused:
                sets.held_out(source, KIND)
        assert refused.value.exit_code == 4
    assert not remote.is_remote(Path("C:/pictures"))
    with pytest.raises(InputError, match="abc://x/y cannot be read"):
        sets.held_out(Path("abc://x/y"), KIND)

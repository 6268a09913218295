"""Which pictures are in a folder, where links lead, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from timm.data.readers.reader_image_folder import find_images_and_targets

from ltmp_export.errors import InputError
from ltmp_export.images import folders


def fill(folder: Path, *names: str) -> Path:
    """Empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def inside(folder: Path) -> list[str]:
    return [path.as_posix() for path in folders.find(folder).inside]


def test_pictures_are_sorted_and_nothing_is_said_where_nothing_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.png", "b/10.JPG", "a/far/1.jpeg", "c.webp", "d.Bmp")
    found = folders.find(tmp_path)
    expected = ["a/far/1.jpeg", "b/10.JPG", "b/2.png", "c.webp", "d.Bmp"]
    assert [path.as_posix() for path in found.inside] == expected
    assert found.paths == tuple(tmp_path / name for name in expected)
    assert found.remarks == ()


def test_what_is_left_out_is_counted_and_said(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "a/._1.png", ".hidden.png", "a/.git/1.png", "__MACOSX/a/1.png")
    fill(tmp_path, "a/labels.csv", "scan.tif", "png")
    (tmp_path / "a" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    found = folders.find(tmp_path)
    assert [path.as_posix() for path in found.inside] == ["a/1.png"]
    assert found.remarks == (
        f"{tmp_path}: left out 2 hidden files (._1.png, …), 2 hidden folders (.git, …), "
        "3 files that are no pictures (labels.csv, …), 1 broken link (gone.png)",
    )


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    assert inside(fill(tmp_path / ".cache" / "photos", "1.png")) == ["1.png"]


def test_nothing_but_what_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "scan.tif", ".1.png")
    message = r"holds no pictures \(.png, .*\); left out: 1 hidden file \(.1.png\), 1 file that is"
    with pytest.raises(InputError, match=message):
        folders.find(tmp_path)


def test_links_are_followed_as_timm_does(tmp_path: Path) -> None:
    fill(tmp_path / "store", "0/1.png", "0/far/2.png", "1/3.png", "single.png")
    view = fill(tmp_path / "view", "2/4.png")
    for name in ("0", "1"):
        (view / name).symlink_to(f"../store/{name}")
    (view / "2" / "one.png").symlink_to("../../store/single.png")
    (tmp_path / "again").symlink_to("view")
    for top in (view, tmp_path / "again"):
        theirs, _ = find_images_and_targets(str(top))
        found = folders.find(top)
        assert sorted(map(str, found.paths)) == sorted(path for path, _ in theirs)
        assert len(found.paths) == 5
        assert found.remarks == ()


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    """Upwards, to each other, to themselves, and into a folder that is being read."""
    fill(tmp_path, "photos/a/1.png", "photos/b/2.png", "beside/3.png")
    photos = tmp_path / "photos"
    (photos / "a" / "up").symlink_to(photos)
    (photos / "a" / "other").symlink_to(photos / "b")
    (photos / "b" / "other").symlink_to(photos / "a")
    (photos / "self").symlink_to("self")
    found = folders.find(photos)
    assert [path.as_posix() for path in found.inside] == ["a/1.png", "b/2.png"]
    assert found.left_out == "1 broken link (self), 3 folders read by another path (other, …)"
    (photos / "a" / "up").unlink()
    (photos / "a" / "up").symlink_to(tmp_path)  # above what was named: more pictures, once
    assert inside(photos) == ["a/1.png", "a/up/beside/3.png", "b/2.png"]


def test_two_links_to_one_folder_are_read_once(tmp_path: Path) -> None:
    fill(tmp_path / "store", "1.png")
    (tmp_path / "view").mkdir()
    for name in ("a", "b"):
        (tmp_path / "view" / name).symlink_to("../store")
    found = folders.find(tmp_path / "view")
    assert [path.as_posix() for path in found.inside] == ["a/1.png"]
    assert found.left_out == "1 folder read by another path (b)"


def test_a_folder_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.png", "locked/2.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read anything
    found = folders.find(tmp_path)
    assert found.left_out == "1 folder that cannot be read (locked)"

"""Which images are trained on and which are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltmp_export.errors import InputError
from ltmp_export.images import sets
from tests.makers.labelled_images import KIND, draw, labels_of, numbered, split, store


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_train_and_val(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "train", {"a": 2, "b": 1, "c": 2})
    draw(tmp_path / name, {"a": 1, "b": 1, "c": 1})
    train, others = split(tmp_path)
    assert labels_of(train) == {
        "a/0.png": 0,
        "a/1.png": 0,
        "b/0.png": 1,
        "c/0.png": 2,
        "c/1.png": 2,
    }
    assert labels_of(others) == {"a/0.png": 0, "b/0.png": 1, "c/0.png": 2}
    assert others.origin == str(tmp_path / name)
    measured = sets.held_out(tmp_path, KIND)
    assert measured.origin == others.origin
    assert labels_of(measured) == labels_of(others)


def test_train_alone_is_split(tmp_path: Path) -> None:
    draw(tmp_path / "train", {"a": 4, "b": 4, "c": 4})
    train, others = split(tmp_path)
    assert (len(train), len(others)) == (9, 3)


def test_validation_images_may_be_elsewhere(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"a": 2, "b": 2, "c": 2})
    elsewhere = store(tmp_path / "others.npz", 4, [0, 1, 2, 2])
    train, others = split(tmp_path / "photos", validation=elsewhere)
    assert (len(train), len(others)) == (6, 4)
    assert others.require_labels().tolist() == [0, 1, 2, 2]


def test_one_folder_is_split_by_its_seed(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 8, "b": 8, "c": 8})
    whole = labels_of(sets.held_out(tmp_path, KIND))
    train, others = split(tmp_path)
    assert len(others) == 6
    assert labels_of(train) | labels_of(others) == whole  # complete, each with its own label
    assert not set(train.names) & set(others.names)
    again = split(tmp_path)
    assert (train.names, others.names) == (again[0].names, again[1].names)
    assert split(tmp_path, seed=1)[1].names != others.names


def test_an_npz_is_split_by_its_seed(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npz", 20, [number % 3 for number in range(20)])
    train, others = split(path, share=0.3)
    assert sorted([*train.index.tolist(), *others.index.tolist()]) == list(range(20))
    assert len(others) == 6
    for part in (train, others):
        np.testing.assert_array_equal(part.require_labels(), part.index % 3)
        assert part.names == tuple(f"a.npz[{number}]" for number in part.index)
    assert train.sha256 == others.sha256
    assert train.sha256 is not None
    assert split(path, share=0.3)[1].names == others.names
    assert split(path, share=0.3, seed=1)[1].names != others.names


def test_halves() -> None:
    one, other = sets.halves(numbered(9), 0)
    assert sorted([*one.index.tolist(), *other.index.tolist()]) == list(range(9))
    assert {len(one), len(other)} == {4, 5}
    assert sets.halves(numbered(9), 0)[0].names == one.names
    assert sets.halves(numbered(9), 1)[0].names != one.names
    with pytest.raises(InputError, match="numbers: 1 image, expected at least 2"):
        sets.halves(numbered(1), 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_shares_that_hold_out_nothing_or_all(tmp_path: Path, share: float) -> None:
    path = store(tmp_path / "a.npz", 4, [0, 1, 2, 0])
    with pytest.raises(InputError, match="to hold out; expected one between 0 and 1"):
        split(path, share=share)


@pytest.mark.parametrize(("share", "held"), [(0.1, 0), (0.9, 4)])
def test_too_few_images_for_a_share(tmp_path: Path, share: float, held: int) -> None:
    path = store(tmp_path / "a.npz", 4, [0, 1, 2, 0])
    with pytest.raises(InputError, match=f"has 4 images, of which {held} would be held out; give"):
        split(path, share=share)


def test_npz_without_labels(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npz", 4)
    images = sets.held_out(path, KIND)
    assert images.labels is None
    assert len(images) == 4
    with pytest.raises(InputError, match="a.npz has no labels; expected a folder for each class"):
        images.require_labels()
    with pytest.raises(InputError, match="a.npz has no labels"):
        split(path)


def test_what_is_left_out_is_said_of_both_sets(tmp_path: Path) -> None:
    draw(tmp_path / "train", {"a": 2, "b": 2, "c": 2})
    draw(tmp_path / "val", {"a": 1, "b": 1})
    (tmp_path / "train" / "a" / "._0.png").write_bytes(b"of macOS")
    (tmp_path / "val" / "notes.txt").write_text("no picture")
    train, others = split(tmp_path)
    assert train.remarks == (f"{tmp_path}/train: left out 1 hidden file (._0.png)",)
    assert others.select(1).remarks == (
        f"{tmp_path}/val: left out 1 file that is no picture (notes.txt)",
        f"{tmp_path}/val has no pictures of 1 of the 3 classes (c)",
    )


def test_images_held_out_must_be_of_the_classes_trained_on(tmp_path: Path) -> None:
    """Three folders here and three there: by number they would pass for each other."""
    draw(tmp_path / "train", {"ant": 1, "bee": 1, "cat": 1})
    draw(tmp_path / "val", {"bee": 1, "cat": 1, "dog": 1})
    with pytest.raises(InputError, match="dog"):
        split(tmp_path)


def test_images_held_out_need_not_have_every_class(tmp_path: Path) -> None:
    draw(tmp_path / "train", {"ant": 1, "bee": 1, "cat": 1})
    draw(tmp_path / "val", {"cat": 2})
    _, others = split(tmp_path)
    assert set(labels_of(others).values()) == {2}


def test_train_without_val_is_nothing_to_measure_on(tmp_path: Path) -> None:
    draw(tmp_path / "train", {"a": 4, "b": 4, "c": 4})
    with pytest.raises(InputError, match=r"has train/ but no val/, validation/, test/; name the"):
        sets.held_out(tmp_path, KIND)
    train, others = split(tmp_path)  # to train on, it is split
    assert len(train) + len(others) == 12


def test_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    message = "phots does not exist; expected a folder of class folders.*; did you mean photos?"
    for read in (lambda path: sets.held_out(path, KIND), split):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "phots")
        with pytest.raises(InputError, match="photos holds no pictures"):
            read(tmp_path / "photos")
    draw(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    with pytest.raises(InputError, match="nowhere does not exist"):
        split(tmp_path / "train", validation=tmp_path / "nowhere")

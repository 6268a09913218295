"""Which class a folder is: by the model's names, a class map, or a stated order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ltmp_export.errors import InputError
from ltmp_export.images import sets
from tests.makers.labelled_images import KIND, draw, labels_of, split, store

NAMED = ("cat", "ant", "bee")


NATURAL, STRING = {"class_order": "natural"}, {"class_order": "string"}
NUMBERS: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "natural": (["10", "2", "1"], NATURAL, ["1", "2", "10"]),
    "string": (["10", "2", "1"], STRING, ["1", "10", "2"]),
    "natural inside": (["img12", "img9", "img100"], NATURAL, ["img9", "img12", "img100"]),
    "string inside": (["img12", "img9", "img100"], STRING, ["img100", "img12", "img9"]),
    "regardless of case": (["Bee", "ant", "cat"], NATURAL, ["ant", "Bee", "cat"]),
    "capitals first": (["Bee", "ant", "cat"], STRING, ["Bee", "ant", "cat"]),
    "by default": (["10", "2", "1"], {"assume_defaults": True}, ["1", "2", "10"]),
    "stated, not by default": (
        ["10", "2", "1"],
        STRING | {"assume_defaults": True},
        ["1", "10", "2"],
    ),
    "letters": (["b", "a", "c"], {}, ["a", "b", "c"]),
    "numbers of one length": (["08", "09", "10"], {}, ["08", "09", "10"]),
    "names": (["ant", "bee", "cat"], {"label_names": NAMED}, ["cat", "ant", "bee"]),
    "names of numbers": (["10", "2", "1"], {"label_names": ("2", "1", "10")}, ["2", "1", "10"]),
    "other names": (["x", "y", "z"], {"label_names": NAMED}, ["x", "y", "z"]),
    "not the names": (
        ["ant", "bee", "cat"],
        STRING | {"label_names": NAMED},
        ["ant", "bee", "cat"],
    ),
}


@pytest.mark.parametrize(("folders", "told", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_of_class_folders(
    tmp_path: Path, folders: list[str], told: dict[str, Any], expected: list[str]
) -> None:
    draw(tmp_path, dict.fromkeys(folders, 1))
    images = sets.held_out(tmp_path, replace(KIND, **told))
    assert labels_of(images) == {f"{name}/0.png": number for number, name in enumerate(expected)}
    assert not images.remarks


def test_some_of_the_names(tmp_path: Path) -> None:
    draw(tmp_path, {"bee": 1, "cat": 1})
    images = sets.held_out(tmp_path, replace(KIND, label_names=NAMED))
    assert labels_of(images) == {"bee/0.png": 2, "cat/0.png": 0}
    assert images.remarks == (f"{tmp_path} has no pictures of 1 of the 3 classes (ant)",)


OPEN = {
    "numbers": (
        ["10", "2", "1"],
        "class 1 is folder '2' in natural order .timm's., '10' in string",
    ),
    "case": (["Bee", "ant", "cat"], "class 0 is folder 'ant' in natural order .timm's., 'Bee' in"),
    "other names": (["x9", "x10", "y"], "class 0 is folder 'x9' in natural"),
}


@pytest.mark.parametrize(("folders", "message"), OPEN.values(), ids=OPEN.keys())
def test_an_order_that_nothing_tells_is_asked_for(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    draw(tmp_path, dict.fromkeys(folders, 2))
    kind = replace(KIND, label_names=("cow", "dog", "eel"))  # no folder is called so
    for read in (sets.held_out, split):
        with pytest.raises(InputError, match=rf"{message}.*--class-order natural\|string, or "):
            read(tmp_path, kind)
    images = sets.held_out(tmp_path, kind, classes=False)  # nothing needs labels
    assert images.labels is None
    (remark,) = images.remarks
    assert remark.startswith(f"no top-1: {tmp_path}: class ")


def test_orders_that_are_no_use(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"10": 1, "2": 1, "1": 1})
    (tmp_path / "map.txt").write_text("10\n2\n1\n")
    mapped = replace(KIND, class_map=tmp_path / "map.txt", class_order="string")
    with pytest.raises(InputError, match="map.txt has the order of the classes; drop"):
        sets.held_out(tmp_path / "photos", mapped)
    with pytest.raises(InputError, match="class order 'alphabetic'; expected natural or string"):
        sets.held_out(tmp_path / "photos", replace(KIND, class_order="alphabetic"))
    path = store(tmp_path / "a.npz", 4, [0, 1, 2, 0])
    with pytest.raises(InputError, match="has labels, not folders; drop --class-order"):
        sets.held_out(path, replace(KIND, class_order="string"))


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    draw(tmp_path, {"a/far": 1, "a/near": 1, "b": 1, "c/near": 1})
    found = labels_of(sets.held_out(tmp_path, KIND))
    assert found == {"a/far/0.png": 0, "a/near/0.png": 0, "b/0.png": 1, "c/near/0.png": 2}


def test_a_class_map_decides(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"ant": 1, "bee": 1})
    (tmp_path / "map.txt").write_text("bee\nwasp\nant\n")
    kind = replace(KIND, label_names=NAMED, class_map=tmp_path / "map.txt")
    found = labels_of(sets.held_out(tmp_path / "photos", kind))
    assert found == {"ant/0.png": 2, "bee/0.png": 0}


BAD_MAPS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "map.txt does not exist; expected a text file with a class folder's name"),
    "empty": (b"", r"map.txt is empty \(0 bytes\)"),
    "too few": (b"ant\nbee\n", "map.txt has 2 lines, 2 of them different; the model has 3 classes"),
    "twice": (b"ant\nbee\nant\n", "map.txt has 3 lines, 2 of them different"),
    "binary": (b"\xff\xfe\x00\n", "map.txt is not a text file: 'utf-8' codec"),
    "no such line": (
        b"ant\nfly\nwasp\n",
        r"photos has a folder 'bee', which is none of the 3 classes",
    ),
}


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize(("content", "message"), BAD_MAPS.values(), ids=BAD_MAPS.keys())
def test_class_maps_refused(
    tmp_path: Path, content: bytes | None, message: str, classes: bool
) -> None:
    draw(tmp_path / "photos", {"ant": 1, "bee": 1, "wasp": 1})
    if content is not None:
        (tmp_path / "map.txt").write_bytes(content)
    kind = replace(KIND, class_map=tmp_path / "map.txt")
    with pytest.raises(InputError, match=message):
        sets.held_out(tmp_path / "photos", kind, classes=classes)


def test_another_number_of_class_folders(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1, "d": 1})
    message = r"has 4 class folders \(a, b, c, …\), the model 3 classes; .* --class-map FILE"
    with pytest.raises(InputError, match=message):
        sets.held_out(tmp_path, KIND)
    images = sets.held_out(tmp_path, KIND, classes=False)
    assert images.labels is None
    assert len(images) == 4


def test_a_picture_beside_the_class_folders_is_named(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 2, "b": 2, "c": 2})
    Image.new("RGB", (9, 9)).save(tmp_path / "stray.png")
    for read in (lambda path: sets.held_out(path, KIND), split):
        with pytest.raises(InputError, match=r"stray.png stands beside the class folders; put it"):
            read(tmp_path)
    images = sets.held_out(tmp_path, KIND, classes=False)
    assert images.labels is None
    assert len(images) == 7


def test_folders_of_which_some_are_called_as_classes(tmp_path: Path) -> None:
    """By number they would silently be others."""
    draw(tmp_path, {"cat": 1, "dog": 1, "Nine": 1})
    kind = replace(KIND, label_names=("dog", "nine", "cat"))
    with pytest.raises(InputError, match=r"called as .* \(cat, dog\), but also Nine;"):
        sets.held_out(tmp_path, kind)


def test_class_names_that_are_there_twice(tmp_path: Path) -> None:
    draw(tmp_path, {"crane": 1, "dog": 1})
    kind = replace(KIND, label_names=("crane", "dog", "crane"))
    with pytest.raises(InputError, match="the model has several classes called 'crane'"):
        sets.held_out(tmp_path, kind)


def test_class_folders_that_natural_order_does_not_tell_apart(tmp_path: Path) -> None:
    draw(tmp_path, {"01": 1, "1": 1, "2": 1})
    assert labels_of(sets.held_out(tmp_path, KIND)) == {
        "01/0.png": 0,
        "1/0.png": 1,
        "2/0.png": 2,
    }


def test_a_class_map_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"ant": 1})
    (tmp_path / "map.txt").write_bytes(b"\xef\xbb\xbfant\nbee\ncat\n")
    kind = replace(KIND, class_map=tmp_path / "map.txt")
    assert labels_of(sets.held_out(tmp_path / "photos", kind)) == {"ant/0.png": 0}


def test_class_folders_are_labels_also_where_none_are_needed(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    assert labels_of(sets.held_out(tmp_path, KIND, classes=False))["c/0.png"] == 2

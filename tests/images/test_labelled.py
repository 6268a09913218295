"""Labelled images: folders of classes and `.npz`, split, selected, batched and augmented."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.images import pictures, sets
from ltmp_export.images.labelled import Arrays, Labelled
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.images.sets import Kind
from ltmp_export.plan.geometry import Vit

HALF = Preprocessing((0.5,) * 3, (0.5,) * 3, 1.0, "bilinear")
THREE = Vit("vit", (8, 8), (4, 4), 3, 3, 1, 64, 64, 1, 64, 1e-6, "gelu", "token")
KIND = Kind(THREE, HALF)


def draw(folder: Path, counts: Mapping[str, int]) -> Path:
    """Pictures of noise, each another one, as `CLASS/NUMBER.png`."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng(100 * number + index)
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def store(path: Path, count: int, labels: Sequence[int] | None = None) -> Path:
    """An `.npz` of different images."""
    pixels = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)
    if labels is None:
        np.savez(path, images=pixels)
    else:
        np.savez(path, images=pixels, labels=np.array(labels))
    return path


def numbered(count: int, labels: Sequence[int] | None = None) -> Labelled:
    """A set whose image i is filled with i."""
    pixels = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 2, 2))
    return Labelled(
        Arrays(pixels.astype(np.float32)),
        np.arange(count),
        None if labels is None else np.array(labels),
        tuple(map(str, range(count))),
        "numbers",
    )


def labels_of(images: Labelled) -> dict[str, int]:
    return dict(zip(images.names, images.require_labels().tolist(), strict=True))


def split(
    source: Path,
    kind: Kind = KIND,
    *,
    augment: str = pictures.PLAIN,
    share: float = 0.25,
    seed: int = 0,
    validation: Path | None = None,
) -> tuple[Labelled, Labelled]:
    return sets.split(source, kind, augment=augment, share=share, seed=seed, validation=validation)


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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_one_line_whoever_reads_it(tmp_path: Path, workers: int) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^[^\n]*b/0.png is not a readable picture: [^\n]*$"):
        list(sets.held_out(tmp_path, KIND).batches(2, workers))


def test_train_without_val_is_nothing_to_measure_on(tmp_path: Path) -> None:
    draw(tmp_path / "train", {"a": 4, "b": 4, "c": 4})
    with pytest.raises(InputError, match=r"has train/ but no val/, validation/, test/; name the"):
        sets.held_out(tmp_path, KIND)
    train, others = split(tmp_path)  # to train on, it is split
    assert len(train) + len(others) == 12


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


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"\x89PNG broken")
    images = sets.held_out(tmp_path, KIND)
    assert images[0].shape == (3, 8, 8)
    with pytest.raises(InputError, match="b/0.png is not a readable picture"):
        list(images.batches(2))


def test_channels_that_pictures_do_not_have(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    kind = replace(KIND, vit=replace(THREE, in_chans=5))
    with pytest.raises(InputError, match="cannot be read into 5 channels; give an .npz"):
        sets.held_out(tmp_path, kind)


def test_take_and_select() -> None:
    images = numbered(10, range(10))
    taken = images.take(np.array([7, 0, 3]))
    assert taken.names == ("7", "0", "3")
    assert taken.require_labels().tolist() == [7, 0, 3]
    assert [float(taken[i].mean()) for i in range(3)] == [7, 0, 3]
    assert taken.take(np.array([2])).names == ("3",)
    assert numbered(3).take(np.array([1])).labels is None
    assert images.select(4).names == ("0", "3", "6", "9")
    assert images.select(1).names == ("0",)
    for count in (None, 10, 99):
        assert images.select(count) is images
    for count in (0, -1):
        with pytest.raises(InputError, match=f"{count} samples asked for; expected at least 1"):
            images.select(count)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_batches_hold_every_image_in_order(count: int, size: int) -> None:
    found = list(numbered(count).batches(size))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert 0 < len(found[-1]) <= size
    together = torch.cat(found)
    assert together.shape == (count, 3, 2, 2)
    assert together[:, 0, 0, 0].tolist() == list(range(count))


def test_batches_read_by_other_processes_are_the_same(tmp_path: Path) -> None:
    images = sets.held_out(draw(tmp_path, {"a": 3, "b": 2, "c": 2}), KIND)
    before = torch.get_rng_state()
    alone, beside = list(images.batches(3)), list(images.batches(3, workers=2))
    assert torch.equal(before, torch.get_rng_state())
    assert [len(batch) for batch in beside] == [3, 3, 1]
    assert torch.equal(torch.cat(alone), torch.cat(beside))


def test_fewer_processes_than_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-1"):
        list(numbered(3).batches(2, workers=-1))


def by_hand(path: Path) -> Tensor:
    """Resize the short side to 8, cut the middle out, normalise: 10x12 pixels."""
    with Image.open(path) as picture:
        resized = picture.convert("RGB").resize((8, 9), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255
    return torch.from_numpy((pixels - 0.5) / 0.5)


def test_evaluation_resizes_and_crops_the_middle(tmp_path: Path) -> None:
    image = sets.held_out(draw(tmp_path, {"a": 1, "b": 1, "c": 1}), KIND)[0]
    whole = by_hand(tmp_path / "a" / "0.png")
    assert any(torch.allclose(image, whole[:, at : at + 8], atol=1e-6) for at in (0, 1))


def test_without_augmentation_training_sees_what_evaluation_sees(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 2, "b": 2, "c": 2})
    whole = sets.held_out(tmp_path, KIND)
    for part in split(tmp_path, share=0.5):
        for number in range(len(part)):
            same = whole[whole.names.index(part.names[number])]
            assert torch.equal(part[number], same)


@pytest.mark.parametrize("augment", ["crop", "rand-m9-mstd0.5-inc1", "augmix-m3-w3", "original"])
def test_augmented_are_only_the_images_to_train_on(tmp_path: Path, augment: str) -> None:
    draw(tmp_path, {"a": 2, "b": 2, "c": 2})
    train, others = split(tmp_path, share=0.5, augment=augment)
    seen = torch.stack([train[0] for _ in range(8)])
    assert seen.shape == (8, 3, 8, 8)
    assert not torch.equal(seen[0].expand_as(seen), seen)
    whole = sets.held_out(tmp_path, KIND)
    assert torch.equal(others[0], whole[whole.names.index(others.names[0])])


@pytest.mark.parametrize("augment", ["rand-m10-inc1-n4", "rand-m0-n4"])
def test_strongest_policies_never_end_a_run(augment: str) -> None:
    transform = pictures.training_transform(THREE, HALF, augment)
    picture = Image.new("RGB", (10, 10), (200, 100, 50))
    for _ in range(100):
        assert transform(picture).isfinite().all()


@pytest.mark.parametrize("policy", ["nope", "rand-m9-q5"])
def test_policies_that_timm_does_not_know(policy: str) -> None:
    with pytest.raises(InputError, match=f"^--augment {policy}: expected none, crop, or a policy"):
        pictures.training_transform(THREE, HALF, policy)


READ: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "grey": ("grey.png", lambda picture: picture.convert("L")),
    "palette": ("palette.png", lambda picture: picture.convert("P")),
    "alpha": ("alpha.png", lambda picture: picture.convert("RGBA")),
}


@pytest.mark.parametrize(("name", "change"), READ.values(), ids=READ.keys())
def test_pictures_of_other_modes(
    tmp_path: Path, name: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    picture = Image.new("RGB", (8, 8), (255, 255, 255))
    change(picture).save(tmp_path / name)
    image = sets.held_out(tmp_path, KIND)[0]
    torch.testing.assert_close(image, torch.ones(3, 8, 8))

"""Labelled images one by one, some of them, and in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltmp_export.errors import InputError
from ltmp_export.images import sets
from ltmp_export.images.labelled import load
from tests.makers.commands import left
from tests.makers.labelled_images import KIND, THREE, draw, numbered


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_one_line_whoever_reads_it(tmp_path: Path, workers: int) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^[^\n]*b/0.png is not a readable picture: [^\n]*$"):
        list(sets.held_out(tmp_path, KIND).batches(2, workers))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"\x89PNG broken")
    images = sets.held_out(tmp_path, KIND)
    assert images[0].shape == (3, 8, 8)
    with pytest.raises(InputError, match="b/0.png is not a readable picture"):
        list(images.batches(2))


def test_channels_that_pictures_do_not_have(tmp_path: Path) -> None:
    draw(tmp_path, {"a": 1, "b": 1, "c": 1})
    kind = replace(KIND, geometry=replace(THREE, in_chans=5))
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


def test_what_follows_a_wrong_one_is_not_read(tmp_path: Path) -> None:
    """Each may wait for a silent server as long as the first."""

    class Silent:
        def __getitem__(self, key: int) -> torch.Tensor:
            (tmp_path / str(key)).touch()
            if key == 1:
                raise InputError("silent")
            return torch.zeros(1)

    with pytest.raises(InputError, match="silent"):
        next(load(Silent(), [range(4)], 0))
    assert left(tmp_path) == ["0", "1"]

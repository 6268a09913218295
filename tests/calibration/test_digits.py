"""The digits are those the dense model has not seen and the golden outputs were made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export import load_checkpoint
from ltmp_export.statements.choices import Choices
from tests.makers import digits


def test_golden_images_are_held_out(golden: Mapping[str, NDArray[Any]]) -> None:
    images, labels = digits.arrays()
    held_out = slice(digits.TRAINED, digits.TRAINED + 48)
    np.testing.assert_array_equal(images[held_out], golden["images"])
    np.testing.assert_array_equal(labels[held_out], golden["labels"])
    trained = {image.tobytes() for image in images[: digits.TRAINED]}
    assert not trained & {image.tobytes() for image in golden["images"]}


def test_the_digits_are_those_the_package_ships(golden: Mapping[str, NDArray[Any]]) -> None:
    images, labels = (part[digits.TRAINED :] for part in digits.arrays())
    assert len(images) == 360
    np.testing.assert_array_equal(labels[:48], golden["labels"])
    np.testing.assert_allclose(images[:48], golden["images"], atol=1e-6)


def test_files(tmp_path: Path) -> None:
    digits.write(tmp_path / "digits")
    sizes = {}
    for name in ("train", "val"):
        with np.load(tmp_path / "digits" / f"{name}.npz") as arrays:
            assert arrays["images"].shape[1:] == (1, 32, 32)
            sizes[name] = len(arrays["labels"])
    assert sizes == {"train": 1437, "val": 360}
    base = load_checkpoint(tmp_path / "digits" / "base.pth", Choices(num_heads=2), dense=True)
    assert base.plan.family == "dense"
    assert base.vit.depth == 6

"""What becomes of a picture: resized and cropped, or augmented to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.images import pictures, sets
from tests.makers.labelled_images import HALF, KIND, THREE, draw, split


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

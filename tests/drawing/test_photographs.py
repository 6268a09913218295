"""Two photographs in the geometry of a DeiT-S: what is shown is what the model saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from ltmp_export.commands.show import show
from ltmp_export.drawing import seen
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.merge_most.step import MergeMost
from tests.makers import random_vits

DEIT_S = {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 2, "num_heads": 6}


def test_two_photographs(tmp_path: Path) -> None:
    """Two of its blocks, ToMe at 13 tokens a block."""
    datasets = pytest.importorskip("sklearn.datasets")
    photos = datasets.load_sample_images()
    (tmp_path / "photos").mkdir()
    for name, pixels in zip(("china", "flower"), photos.images, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"photos/{name}.png")
    case = random_vits.Case("DeiT-S", 0, DEIT_S)
    plan = Plan("m", ((MergeMost(13),), (MergeMost(13),)))
    path = tmp_path / "deit.onnx"
    onnx.save(to_onnx(random_vits.bare(*random_vits.build(case), plan), opset=17), path)
    drawn = show(path, tmp_path / "new", images=tmp_path / "photos", grid=True, threads=1)
    assert [one.files for one in drawn.pictures] == [("china.png",), ("flower.png",)]
    for one in drawn.pictures:
        blocks = one.courses[0]["blocks"]
        assert [block["tokens"] for block in blocks] == [184, 171]
        assert [len(block["token_map"]) for block in blocks] == [196, 196]
    exported = read_exported(path)
    given = inputs.load_images(tmp_path / "photos", exported.geometry, exported.preprocessing)
    for pixels, photo in zip(given.pixels, photos.images, strict=True):
        as_seen = seen.pixels(pixels, exported.preprocessing)
        off = np.abs(as_seen.astype(int) - prepared(photo, exported.preprocessing.crop_pct))
        assert off.max() <= 1


def prepared(photo: np.ndarray, crop: float) -> np.ndarray:
    """The shorter side resized to 224 / crop, and the middle of it, by Pillow alone."""
    picture, side = Image.fromarray(photo), int(224 / crop)
    scale = side / min(picture.size)
    size = tuple(side if one == min(picture.size) else int(one * scale) for one in picture.size)
    large = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BICUBIC))
    top, left = (round((one - 224) / 2) for one in large.shape[:2])
    return large[top : top + 224, left : left + 224].astype(int)

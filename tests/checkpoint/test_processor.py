"""How other libraries prepare images, in timm's words, and the pixels that these give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltmp_export.checkpoint import processor
from ltmp_export.checkpoint.beside import Beside
from ltmp_export.checkpoint.load import load_checkpoint
from tests.documents.libraries import ROWS
from tests.makers.library_numbers import numbers

Words = dict[str, Any]
SQUARE = {"height": 224, "width": 224}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}

# By a processor's name: its preprocessor_config.json and the words.
PROCESSORS: dict[str, tuple[Words, Words]] = {
    "ViTImageProcessor": (
        {"image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": 2,
         "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "size": SQUARE,
         **HALF},
        {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "crop_pct": 1.0,
         "crop_mode": "squash", processor.SIZE: (224, 224)},
    ),
    "DeiTImageProcessor": (
        {"image_processor_type": "DeiTImageProcessor", "resample": 3, "do_center_crop": True,
         "size": {"height": 256, "width": 256}, "crop_size": SQUARE, **HALF},
        {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "crop_pct": 0.875,
         "crop_mode": "squash", processor.SIZE: (224, 224)},
    ),
    "BitImageProcessor, DINOv2's": (
        {"image_processor_type": "BitImageProcessor", "resample": 3, "do_center_crop": True,
         "size": {"shortest_edge": 256}, "crop_size": SQUARE, **HALF},
        {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "crop_pct": 0.875,
         "crop_mode": "center", processor.SIZE: (224, 224)},
    ),
    "CLIPFeatureExtractor, before 4.27": (
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224,
         "do_center_crop": True, "resample": 3},
        {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
         processor.SIZE: (224, 224)},
    ),
    "ViTFeatureExtractor, before 4.27": (
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2},
        {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash",
         processor.SIZE: (224, 224)},
    ),
    "pixels as they are": (
        {"do_rescale": False, "image_mean": [127.5], "image_std": [255.0]},
        {"mean": [0.5], "std": [1.0]},
    ),
    "no normalisation": (
        {"do_normalize": False, **HALF}, {"mean": (0.0,), "std": (1.0,)},
    ),
    "ConvNextImageProcessor": (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
        {"crop_pct": 0.875, "crop_mode": "center", processor.SIZE: (224, 224)},
    ),
    "nothing that can be said": (
        {"size": {"longest_edge": 9}, "resample": 77, "image_mean": "x"}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_words_of_a_processor(name: str) -> None:
    told, expected = PROCESSORS[name]
    found = processor.words(Beside(processor=told, belongs=True))
    assert {key: one.value for key, one in found.items()} == expected
    assert all(one.where.startswith("preprocessor_config.json: ") for one in found.values())


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (518, 592), (98, 111), (37, 41)])
def test_a_share_gives_back_the_resized_side(size: int, resized: int) -> None:
    """Timm divides by it and rounds down."""
    told = {"do_center_crop": True, "size": {"shortest_edge": resized}, "crop_size": size}
    share = processor.words(Beside(processor=told))["crop_pct"].value
    assert int(np.floor(size / share)) == resized


def test_what_open_clip_says() -> None:
    config = {"preprocess_cfg": {"mean": [0.1], "std": [0.2], "interpolation": "bilinear",
                                 "resize_mode": "squash"}}  # fmt: skip
    found = {key: one.value for key, one in processor.words(Beside(open_clip=config)).items()}
    assert found == {"mean": [0.1], "std": [0.2], "interpolation": "bilinear",
                     "crop_mode": "squash", "crop_pct": 1.0}  # fmt: skip


def test_a_folder_with_a_processor(tmp_path: Path) -> None:
    """Its words are the preprocessing; images of another size are said."""
    recorded = next(row for row in ROWS if row.fixture == "ViTForImageClassification").recorded()
    weights = {k: torch.from_numpy(v) for k, v in numbers(recorded["shapes"]).items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(recorded["config"]))
    told = {**PROCESSORS["DeiTImageProcessor"][0], "size": 20, "crop_size": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    found = load_checkpoint(tmp_path, dense=True)
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert (found.preprocessing.crop_pct, found.preprocessing.crop_mode) == (0.8, "squash")
    assert not found.preprocessing.assumed
    assert found.answers["mean"].where == "preprocessor_config.json: image_mean"
    (warning,) = found.warnings
    assert "makes images of 16x16, the positions are for 32x32; --img-size 16,16 resizes" in warning

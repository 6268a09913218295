"""The dense digits ViT and the images to calibrate it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from tests.makers import digits
from tests.makers.calibrated import CHOICES


@pytest.fixture(scope="session")
def digits_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 360 digits that the dense model was not trained on, with their labels."""
    images, labels = (part[digits.TRAINED :] for part in digits.arrays())
    path = tmp_path_factory.mktemp("calibration") / "digits.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def dense(digits_base: Path) -> Checkpoint:
    """Its weights without thresholds."""
    return load_checkpoint(digits_base, CHOICES, dense=True)

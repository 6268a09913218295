"""An image's numbers are its own, to the last bit, in whatever batch it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.model_file.model import to_onnx
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from tests.conftest import load_torch
from tests.makers.examples import EXAMPLES, digits

HEADS = 8  # of more than four, onnxruntime's sums over heads would tell how many images there are


AVERAGED = "diffrate, patches averaged"


@pytest.mark.parametrize("family", ["evit", "sinkhorn", "dpcknn", "diffrate", AVERAGED])
def test_batches_change_no_bit(
    family: str, digits_base: Path, digit_images: Tensor, tmp_path: Path
) -> None:
    family, _, averaged = family.partition(",")
    path = digits(family, digits_base).path
    if averaged:  # as MAE's: sizes are no whole numbers, and their sum divides
        weights = {("fc_" * k.startswith("norm.")) + k: v for k, v in load_torch(path).items()}
        path = tmp_path / "mae.pth"
        torch.save({"model": weights}, path)
    stated = {"num_heads": HEADS, **EXAMPLES[family].stated}
    checkpoint = load_checkpoint(path, Choices(**stated))
    session = Session(to_onnx(checkpoint, opset=17), threads=1)
    pixels = digit_images[:24].numpy()
    alone = np.concatenate([session.run(image[None])[0] for image in pixels])
    for size in (7, 24):
        found = [session.run(pixels[at : at + size])[0] for at in range(0, 24, size)]
        assert np.array_equal(np.concatenate(found), alone)

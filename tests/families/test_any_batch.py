"""An image's numbers are its own, to the last bit, in whatever batch it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.model_file.model import to_onnx
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from tests.makers.examples import EXAMPLES, digits

HEADS = 8  # of more than four, onnxruntime's sums over heads would tell how many images there are


@pytest.mark.parametrize("family", ["evit", "sinkhorn", "dpcknn", "diffrate"])
def test_batches_change_no_bit(family: str, digits_base: Path, digit_images: Tensor) -> None:
    path = digits(family, digits_base).path
    stated = {"num_heads": HEADS, **EXAMPLES[family].stated}
    checkpoint = load_checkpoint(path, Choices(**stated))
    session = Session(to_onnx(checkpoint, opset=17), threads=1)
    pixels = digit_images[:24].numpy()
    alone = np.concatenate([session.run(image[None])[0] for image in pixels])
    assert np.array_equal(session.run(pixels)[0], alone)

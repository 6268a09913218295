"""Constants of graphs: none is NaN or infinite, so that other tools can round them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.precision.formats import DYNAMIC, FP16, Precision
from tests.makers.lower_precision import in_batches, same_class, unmeasured, weights_of, written

Digits = Callable[[str], Checkpoint]
KEEP = (50, 40, 30, 25, 20, 18)
PRECISIONS = (Precision(), Precision(FP16, io=FP16), unmeasured(), unmeasured(DYNAMIC))


@pytest.mark.parametrize(
    ("family", "keep"),
    [*((name, None) for name in families.names()), *((name, KEEP) for name in families.learned())],
)
def test_all_are_finite(digits: Digits, family: str, keep: tuple[int, ...] | None) -> None:
    checkpoint = digits(family)
    plan = checkpoint.plan.within(keep) if keep else checkpoint.plan
    for precision, batch_size in itertools.product(PRECISIONS, (None, 1)):
        stored = weights_of(written(checkpoint, plan, precision, batch_size=batch_size))
        broken = [name for name, array in stored.items() if not np.isfinite(array).all()]
        assert (precision.kind, broken) == (precision.kind, [])
        assert len(stored) > 60


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keep", [None, KEEP])
def test_the_quantiser_of_onnxruntime_takes_a_file(
    digits: Digits, tmp_path: Path, keep: tuple[int, ...] | None
) -> None:
    """With its defaults it rounds tables, too: one number that is infinite makes all logits NaN."""
    checkpoint = digits("ltmp")
    if keep:
        checkpoint = replace(checkpoint, plan=checkpoint.plan.within(keep))
    model = to_onnx(checkpoint, opset=17)
    onnx.save(model, tmp_path / "model.onnx")
    quantize_dynamic(tmp_path / "model.onnx", tmp_path / "rounded.onnx")
    found = in_batches(onnx.load(tmp_path / "rounded.onnx"), inputs.embedded_digits().pixels, 12)
    assert np.isfinite(found).all()
    assert same_class(found, in_batches(model, inputs.embedded_digits().pixels, 12)) >= 40

"""What could not be compared is neither passed nor failed."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import CheckFailedError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from tests.makers.checks import check

Digits = Callable[[str], Checkpoint]


class TestInconclusive:
    def test_nothing_compared(self, digits: Digits, images: inputs.Images) -> None:
        none = dataclasses.replace(images, pixels=images.pixels[:0], names=())
        found = compare.compare(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), none)
        assert found.verdict == "inconclusive"
        assert not found.passed()
        with pytest.raises(CheckFailedError, match="nothing was compared"):
            found.require()

    def test_taps_missing(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltmp"), opset=17)
        renamed = model.SerializeToString().replace(b"block_03/count", b"block_03/other")
        found = check(onnx.ModelProto.FromString(renamed), digits("ltmp"), images)
        assert (found.verdict, found.comparisons) == ("inconclusive", ())
        assert "lacks the named tensor block_03/count, so" in found.reason
        assert "export it again" in found.reason
        with pytest.raises(CheckFailedError, match="block_03/count"):
            found.require()

    def test_nan_inside_the_reference(self, digits: Digits, images: inputs.Images) -> None:
        """Keys of zero have no direction: similarities are NaN on both sides, logits are not."""
        checkpoint = digits("ltm")
        model = copy.deepcopy(checkpoint.model)
        model.blocks[2].attn.qkv.weight[128:256] = 0
        model.blocks[2].attn.qkv.bias[128:256] = 0
        zero = dataclasses.replace(checkpoint, model=model)
        found = check(to_onnx(zero, opset=17), zero, images.select(2))
        assert {c.verdict for c in found.comparisons} == {"inconclusive"}

    def test_nan_in_an_image_stays_in_its_row(self, digits: Digits, images: inputs.Images) -> None:
        pixels = images.pixels.copy()
        pixels[2, 0, 0, 0] = np.nan
        broken = dataclasses.replace(images, pixels=pixels)
        found = check(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), broken, 6)
        verdicts = [c.verdict for c in found.comparisons if c.order == "given" and c.batch_size > 1]
        assert verdicts == ["equal"] * 2 + ["inconclusive"] + ["equal"] * 3
        assert found.verdict == "inconclusive"
        assert not found.passed()
        assert "NaN" in found.headline()
        assert all(0.5 < row.token_ratio < 1.5 for row in found.blocks)
        json.dumps(found.to_json(), allow_nan=False)

    def test_only_nan(self, digits: Digits, images: inputs.Images) -> None:
        nothing = dataclasses.replace(images, pixels=images.pixels * np.float32(np.nan))
        found = check(to_onnx(digits("ltp"), opset=17), digits("ltp"), nothing, 2)
        assert {one.verdict for one in found.judged()} == {"inconclusive"}
        assert all(row.token_ratio == 0 for row in found.blocks)

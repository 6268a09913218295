"""An image's result is the same alone, in a batch, and in a batch turned round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import taps
from ltmp_export.parity.runs import ALONE, Run, runs
from ltmp_export.steps.tokens import Choice
from tests.makers.checks import check

Digits = Callable[[str], Checkpoint]


class TestInvariance:
    def test_alike(self, digits: Digits, images: inputs.Images) -> None:
        found = check(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), images, 4)
        assert {(i.batch_size, i.order) for i in found.invariance} == {
            (4, "given"),
            (4, "reversed"),
        }
        assert {i.verdict for i in found.invariance} == {"equal"}
        assert len(found.invariance) == 12
        assert all(i.errors["logits"] < 1e-6 for i in found.invariance)

    def test_batch_1_has_nothing_to_compare(self, digits: Digits, images: inputs.Images) -> None:
        found = check(to_onnx(digits("ltp"), opset=17), digits("ltp"), images, 1)
        assert found.invariance == ()

    def test_images_that_leak_into_each_other(self, digits: Digits, images: inputs.Images) -> None:
        """A part of the batch's mean is added to every image's logits."""
        model = to_onnx(digits("ltp"), opset=17)
        source = next(n for n in model.graph.node if n.output[0] == "logits").input[0]
        model.graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), "part"))
        make = onnx.helper.make_node
        for node in (
            make("ReduceMean", [source], ["mean"], axes=[0], keepdims=1),
            make("Mul", ["mean", "part"], ["little"]),
            make("Add", [source, "little"], ["mixed"]),
        ):
            model.graph.node.insert(len(model.graph.node) - 1, node)
        model.graph.node[-1].input[0] = "mixed"
        found = check(model, digits("ltp"), images, 3)
        assert {i.verdict for i in found.invariance} == {"fail"}
        assert found.invariance[0].reason.startswith("the logits differ by ")
        assert "fail digit 0 (a 2), batches 3, 3 reversed against alone: the logits" in "".join(
            line for line in found.told() if "against alone" in line
        )

    def test_copies_of_one_image_prove_nothing(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17)
        found = check(model, digits("ltp"), images.select(1), 3)
        assert found.verdict == "equal"
        assert found.invariance == ()

    def test_the_partner_of_who_does_not_merge_decides_nothing(self) -> None:
        chosen = torch.tensor([False, True])
        one, other, third = (
            ((Choice(chosen, torch.tensor(partner)),),) for partner in ([0, 1], [1, 1], [0, 0])
        )
        assert taps.digest(one) == taps.digest(other) != taps.digest(third)

    def test_runs(self) -> None:
        assert runs((1,)) == (ALONE,)
        assert runs((1, 2, 7)) == (ALONE, Run(2), Run(7), Run(7, "reversed"))
        assert runs((8,)) == (ALONE, Run(8), Run(8, "reversed"))

    @pytest.mark.parametrize("run", [Run(1), Run(3), Run(4), Run(4, "reversed"), Run(9)])
    def test_places(self, run: Run) -> None:
        for number in range(7):
            which, index, row = run.place(number, 7)
            assert len(index) == run.size
            assert index[row] == number
            assert which == number // run.size

    @pytest.mark.parametrize("sizes", [(2, 0), (), (3, 3)])
    def test_bad_sizes(self, sizes: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="batch sizes"):
            runs(sizes)

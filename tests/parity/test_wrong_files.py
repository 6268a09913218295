"""The check tells a wrong file, where it is wrong and by how much.

Wrong graphs one by one are in `test_mutations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import CheckFailedError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import taps
from ltmp_export.runtimes import session
from ltmp_export.steps.prune.step import Prune
from tests.makers.checks import check
from tests.makers.edge_cases import on_the_threshold, with_threshold
from tests.makers.mutations import change_stored

Digits = Callable[[str], Checkpoint]


class TestFail:
    def test_says_where_and_by_how_much(self, digits: Digits, images: inputs.Images) -> None:
        right = digits("ltp")
        wrong = with_threshold(right, Prune, 2 * right.plan.thresholds()["prune"][0])
        found = check(to_onnx(wrong, opset=17), right, images, 3)
        assert found.verdict == "fail"
        first = found.of("fail")[0]
        assert (first.block, first.where) == (0, "block 0")
        assert not first.flips[0].explained
        message = (
            r"^block 0: the prune threshold is 0\.02\d+ in the file, 0\.01\d+ in the checkpoint; "
            r"18 of 30 comparisons do not pass; the first is digit 0 \(a 2\), batch 1: block 0: "
            r"token \d+ is pruned by the file, kept by the reference: importance 0\.0\d+, "
            r"threshold 0\.01\d+, margin \d\.\de-0\d, rounding explains .*; \d+ decisions of this"
        )
        with pytest.raises(CheckFailedError, match=message):
            found.require()

    def test_a_shifted_logit(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltm"), opset=17)
        bias = next(t for t in model.graph.initializer if t.name == "head.bias")
        shifted = numpy_helper.to_array(bias) + np.float32(2e-2)
        bias.CopyFrom(numpy_helper.from_array(shifted, "head.bias"))
        found = check(model, digits("ltm"), images)
        assert {c.where for c in found.of("fail")} == {"head"}
        assert "the logits differ by 2" in found.of("fail")[0].reason

    def test_wrong_token_counts_output(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17, token_counts=True)
        output = next(node for node in model.graph.node if node.output[0] == "token_counts")
        output.op_type = "Neg"
        found = check(model, digits("ltp"), images, 2)
        assert {c.verdict for c in found.comparisons} == {"fail"}
        assert "token counts are not those of its own decisions" in found.comparisons[0].reason

    def test_other_weights(self, digits: Digits, images: inputs.Images) -> None:
        """Even where these images do not show it."""
        model = to_onnx(digits("ltp"), opset=17)
        change_stored(model, "blocks.3.mlp.fc2.bias", lambda array: np.add(array, 1e-8, out=array))
        found = check(model, digits("ltp"), images)
        assert found.of("fail") == ()
        assert found.verdict == "fail"
        assert found.reason.startswith("the file's blocks.3.mlp.fc2.bias differs from the check")

    def test_a_weight_of_another_shape(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17)
        bias = next(t for t in model.graph.initializer if t.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[None], "head.bias"))
        found = check(model, digits("ltp"), images)
        assert found.reason == "the file's head.bias has the shape [1, 10] instead of [10]"

    def test_decisions_that_do_not_follow_from_the_scores(
        self, digits: Digits, images: inputs.Images
    ) -> None:
        """The file compares with another number, within rounding of the right one."""
        checkpoint = on_the_threshold(digits("ltp"), images, Prune)
        model = to_onnx(checkpoint, opset=17)
        compared = next(n for n in model.graph.node if "block_00/prune_threshold" in n.input)
        compared.input[1] = "another"
        value = np.float32(checkpoint.plan.thresholds()["prune"][0] * (1 + 1e-6))
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), "another"))
        found = check(model, checkpoint, images.select(1))
        assert found.verdict == "fail"
        assert "does not follow from the file's own score" in found.comparisons[0].reason

    @pytest.mark.parametrize(
        ("kind", "attributes", "shape"),
        [("Concat", {"axis": 0}, "[2, 10]"), ("Unsqueeze", {}, "[1, 1, 10]")],
    )
    def test_outputs_of_another_shape(
        self,
        digits: Digits,
        images: inputs.Images,
        kind: str,
        attributes: dict[str, int],
        shape: str,
    ) -> None:
        model = to_onnx(digits("ltp"), opset=17)
        last = next(node for node in model.graph.node if node.output[0] == "logits")
        more = last.input[0] if kind == "Concat" else "const/i64[1]"
        node = onnx.helper.make_node(kind, [last.input[0], more], ["logits"])
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in attributes.items())
        last.CopyFrom(node)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        found = check(model, digits("ltp"), images, 2)
        assert found.verdict == "fail"
        assert f"gives logits of shape {shape}; expected [1, 10]" in found.reason

    @pytest.mark.parametrize(
        "tap",
        ["count", "tokens", "size", "similarity", "merged", "partner", "merged_importance", "kept"],
    )
    @pytest.mark.parametrize("kind", ["Unsqueeze", "Flatten", "Shape"])
    def test_named_tensors_of_another_shape(
        self, digits: Digits, images: inputs.Images, tap: str, kind: str
    ) -> None:
        """A line that says so, never a traceback."""
        model = to_onnx(digits("ltmp"), opset=17)
        name = f"block_02/{tap}"
        (node,) = (n for n in model.graph.node if name in n.output)
        node.output[0] = "right"
        for other in model.graph.node:
            for position, source in enumerate(other.input):
                if source == name:
                    other.input[position] = "right"
        source, to = (
            "right",
            next(t for t in (9, 7, 1) if taps.names(digits("ltmp").plan)[name] == t),
        )
        nodes = {
            "Unsqueeze": [onnx.helper.make_node("Unsqueeze", [source, "const/i64[2]"], [name])],
            "Flatten": [onnx.helper.make_node("Reshape", [source, "const/i64[-1]"], [name])],
            "Shape": [
                onnx.helper.make_node("Shape", [source], ["shape"]),
                onnx.helper.make_node("Cast", ["shape"], [name], to=to),
            ],
        }[kind]
        flat = tap in ("count", "size")
        if kind == "Unsqueeze" and flat:
            nodes[0].input[1] = "const/i64[1]"
        model.graph.node.extend(nodes)
        found = check(model, digits("ltmp"), images.select(2), 2)
        if kind == "Flatten" and flat:
            assert found.verdict == "equal"
            return
        assert found.verdict == "fail"
        assert {c.where for c in found.comparisons} == {"block 2"}

    def test_broken_decisions(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltm"), opset=17)
        for node in model.graph.node:
            if node.output[0] == "block_02/partner":
                node.op_type = "ArgMin"  # finds padding, or the least similar
        found = check(model, digits("ltm"), images, 2)
        assert {c.where for c in found.of("fail")} == {"block 2"}

    def test_another_family_without_the_tensors(
        self, digits: Digits, images: inputs.Images
    ) -> None:
        found = check(to_onnx(digits("ltp"), opset=17), digits("ltmp"), images)
        assert found.verdict == "fail"
        assert found.reason == "the file's blocks take the steps of ltp, the checkpoint's of ltmp"


def test_the_file_itself_is_judged_not_its_tapped_copy(
    digits: Digits, images: inputs.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other logits without the taps, as if onnxruntime had optimised wrongly."""
    right = session.Session.run

    def wrong(self: session.Session, pixels: np.ndarray) -> list[np.ndarray]:
        outputs = right(self, pixels)
        return [outputs[0] + 1e-2] if len(outputs) == 1 else outputs

    monkeypatch.setattr(session.Session, "run", wrong)
    found = check(to_onnx(digits("ltp"), opset=17), digits("ltp"), images)
    assert {c.where for c in found.of("fail")} == {"head"}


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (np.array([0.5, 0.5], np.float32), r"float32 \[2\]"),
        (np.array(["0.5"], object), r".* \[1\]"),
        (np.array(0), r"int64 \[\]"),
    ],
)
def test_a_threshold_that_is_no_number(
    digits: Digits, images: inputs.Images, stored: NDArray[Any], shown: str
) -> None:
    """One that nothing in the graph reads: the decisions are right."""
    model = to_onnx(digits("ltp"), opset=17)
    for tensor in model.graph.initializer:
        if tensor.name == "block_02/prune_threshold":
            tensor.name = "renamed"
    for node in model.graph.node:
        node.input[:] = [
            "renamed" if name == "block_02/prune_threshold" else name for name in node.input
        ]
    added = numpy_helper.from_array(stored, "block_02/prune_threshold")
    model.graph.initializer.append(added)
    found = check(model, digits("ltp"), images.select(1), 1)
    assert found.verdict == "fail"
    assert re.fullmatch(rf"block 2: the file's prune threshold is {shown}, no number", found.reason)

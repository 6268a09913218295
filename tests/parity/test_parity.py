"""The check must tell a right file from a wrong one, and a wrong one from rounding.

Wrong graphs one by one are in `test_mutations`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare as check_compare
from ltmp_export.parity import taps
from ltmp_export.parity.replay import ALONE, Run, runs
from ltmp_export.parity.report import CheckReport
from ltmp_export.runtimes import session
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Choice
from tests.makers.edge_cases import on_the_threshold, with_threshold
from tests.makers.mutations import change_stored

Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def images() -> inputs.Images:
    return inputs.embedded_digits().select(6)


def compare(
    model: onnx.ModelProto, checkpoint: Checkpoint, images: inputs.Images, *sizes: int
) -> CheckReport:
    return check_compare.compare(model, checkpoint, images, batch_sizes=sizes or (1,))


class TestRight:
    @pytest.mark.parametrize("family", families.names())
    def test_equal(self, digits: Digits, images: inputs.Images, family: str) -> None:
        model = to_onnx(digits(family), opset=17, token_counts=True)
        found = compare(model, digits(family), images, 1, 4)
        assert found.verdict == "equal", found.headline()
        assert found.passed(strict=True)
        found.require()
        assert {(c.batch_size, c.order) for c in found.comparisons} == {
            (1, "given"), (4, "given"), (4, "reversed"),
        }  # fmt: skip
        assert len(found.comparisons) == 18
        assert all(0 < c.logit_error < c.logit_allowed < 1e-5 for c in found.comparisons)

    def test_every_block_is_summed_up(self, digits: Digits, images: inputs.Images) -> None:
        found = compare(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), images, 3)
        steps = [(row.block, row.step) for row in found.blocks]
        assert steps == [(b, s) for b in range(6) for s in ("merge", "prune")]
        for row in found.blocks:
            assert 0 < row.measured == row.score_error < row.score_allowed < 3e-5
            assert row.bound == pytest.approx(max(4 * row.measured, 1e-6))
            assert 0 < row.token_error < row.token_allowed < 2e-5
            assert 0.5 < row.token_ratio < 1.5
            assert row.margin > 0
            assert row.flips == row.flipped_images == 0
        nearest = min(row.margin for row in found.blocks)
        assert nearest == min(c.margin for c in found.comparisons)


class TestBorderline:
    @pytest.mark.parametrize(("family", "kind"), [("ltp", Prune), ("ltmp", Prune), ("ltm", Merge)])
    def test_equal_to_the_last_bit(
        self, digits: Digits, images: inputs.Images, family: str, kind: type
    ) -> None:
        checkpoint = on_the_threshold(digits(family), images, kind)
        model = to_onnx(checkpoint, opset=17)
        found = compare(model, checkpoint, images.select(1), 1, 3)
        assert found.verdict == "borderline"
        assert found.passed()
        assert not found.passed(strict=True)
        assert [c.verdict for c in found.comparisons] == ["borderline"] * 3
        first = found.comparisons[0]
        (flip,) = first.flips
        assert flip.decision.block == first.block == 0
        assert flip.decision.what == ("kept" if kind is Prune else "merged")
        assert flip.decision.score == flip.decision.threshold
        assert flip.decision.distance == 0 <= flip.bound
        assert first.where == "block 0"
        assert "margin 0.0e+00, rounding explains" in first.reason
        assert first.counts != first.expected_counts
        assert first.logit_error < first.logit_allowed  # the replay agrees
        row = found.blocks[0] if kind is Merge or family == "ltp" else found.blocks[1]
        assert (row.margin, row.flips, row.flipped_images) == (0, 3, 1)

    @pytest.mark.parametrize(("family", "kind"), [("ltp", Prune), ("ltmp", Prune), ("ltm", Merge)])
    def test_several_in_one_image(
        self, digits: Digits, images: inputs.Images, family: str, kind: type
    ) -> None:
        """One token of image 0 on the threshold in three blocks, wherever the last one led."""
        checkpoint = digits(family)
        for block in range(3):
            checkpoint = on_the_threshold(checkpoint, images, kind, block)
        found = compare(to_onnx(checkpoint, opset=17), checkpoint, images, 1, 5)
        assert found.verdict == "borderline", found.headline()
        first = found.comparisons[0]
        assert [flip.decision.block for flip in first.flips] == [0, 1, 2]
        assert all(flip.decision.margin < 1e-15 for flip in first.flips)
        assert first.reason.endswith("; 3 decisions in all")
        assert first.logit_error < first.logit_allowed

    def test_excuses_no_other_error(self, digits: Digits, images: inputs.Images) -> None:
        checkpoint = on_the_threshold(digits("ltp"), images, Prune)
        model = to_onnx(checkpoint, opset=17)
        head = next(t for t in model.graph.initializer if t.name == "head.weight")
        head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "head.weight"))
        found = compare(model, checkpoint, images.select(1))
        assert found.verdict == "fail"
        assert found.comparisons[0].where == "head"
        assert "with the same decisions the logits differ by" in found.comparisons[0].reason

    @pytest.mark.parametrize(("distance", "verdict"), [(1e-9, "borderline"), (1e-4, "fail")])
    def test_only_what_rounding_explains(
        self, digits: Digits, images: inputs.Images, distance: float, verdict: str
    ) -> None:
        """The reference's threshold a little above, the file's the same but for its name."""
        checkpoint = on_the_threshold(digits("ltp"), images, Prune)
        score = checkpoint.plan.thresholds()["prune"][0]
        model = to_onnx(checkpoint, opset=17)
        named = model.SerializeToString().replace(
            b"block_00/prune_threshold", b"block_00/prune_constantX"
        )
        further = with_threshold(checkpoint, Prune, score * (1 + distance))
        found = compare(onnx.ModelProto.FromString(named), further, images.select(1))
        assert found.verdict == verdict
        assert (found.comparisons[0].flips[0].decision.margin > 0) == (distance > 0)

    def test_the_bound_is_measured_on_undisputed_tokens(
        self, digits: Digits, images: inputs.Images
    ) -> None:
        """A step whose scores are exact has the least bound, one that is off by more a wider."""
        checkpoint = digits("ltp")
        model = to_onnx(checkpoint, opset=17)
        right = compare(model, checkpoint, images.select(2)).blocks[0]
        for node in model.graph.node:
            if node.op_type == "Softmax" and "block_00" in node.name:
                at = list(model.graph.node).index(node)
                source = str(node.input[0])
                node.input[0] = "rough"
        step = numpy_helper.from_array(np.array(2.0**18, np.float32), "step")
        model.graph.initializer.append(step)
        make = onnx.helper.make_node
        rough = [
            make("Mul", [source, "step"], ["fine"]),
            make("Round", ["fine"], ["whole"]),
            make("Div", ["whole", "step"], ["rough"]),
        ]
        for node in reversed(rough):
            model.graph.node.insert(at, node)
        found = compare(model, checkpoint, images.select(2)).blocks[0]
        assert right.bound < found.bound == 4 * found.measured
        assert found.bound < found.score_allowed


class TestFail:
    def test_says_where_and_by_how_much(self, digits: Digits, images: inputs.Images) -> None:
        right = digits("ltp")
        wrong = with_threshold(right, Prune, 2 * right.plan.thresholds()["prune"][0])
        found = compare(to_onnx(wrong, opset=17), right, images, 3)
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
        found = compare(model, digits("ltm"), images)
        assert {c.where for c in found.of("fail")} == {"head"}
        assert "the logits differ by 2" in found.of("fail")[0].reason

    def test_wrong_token_counts_output(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17, token_counts=True)
        output = next(node for node in model.graph.node if node.output[0] == "token_counts")
        output.op_type = "Neg"
        found = compare(model, digits("ltp"), images, 2)
        assert {c.verdict for c in found.comparisons} == {"fail"}
        assert "token counts are not those of its own decisions" in found.comparisons[0].reason

    def test_other_weights(self, digits: Digits, images: inputs.Images) -> None:
        """Even where these images do not show it."""
        model = to_onnx(digits("ltp"), opset=17)
        change_stored(model, "blocks.3.mlp.fc2.bias", lambda array: np.add(array, 1e-8, out=array))
        found = compare(model, digits("ltp"), images)
        assert found.of("fail") == ()
        assert found.verdict == "fail"
        assert found.reason.startswith("the file's blocks.3.mlp.fc2.bias differs from the check")

    def test_a_weight_of_another_shape(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17)
        bias = next(t for t in model.graph.initializer if t.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[None], "head.bias"))
        found = compare(model, digits("ltp"), images)
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
        found = compare(model, checkpoint, images.select(1))
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
        found = compare(model, digits("ltp"), images, 2)
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
        found = compare(model, digits("ltmp"), images.select(2), 2)
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
        found = compare(model, digits("ltm"), images, 2)
        assert {c.where for c in found.of("fail")} == {"block 2"}

    def test_another_family_without_the_tensors(
        self, digits: Digits, images: inputs.Images
    ) -> None:
        found = compare(to_onnx(digits("ltp"), opset=17), digits("ltmp"), images)
        assert found.verdict == "fail"
        assert found.reason == "the file's blocks take the steps of ltp, the checkpoint's of ltmp"


def test_sharp_attention_is_no_false_alarm(digits: Digits, images: inputs.Images) -> None:
    """Queries 30 times as long: attention logits of some 300, and rounding as much larger."""
    checkpoint = digits("ltmp")
    model = copy.deepcopy(checkpoint.model)
    for block in model.blocks:
        block.attn.qkv.weight[:128] *= 30
        block.attn.qkv.bias[:128] *= 30
    sharp = dataclasses.replace(checkpoint, model=model)
    found = compare(to_onnx(sharp, opset=17), sharp, images, 3)
    assert found.passed(), found.headline()
    assert max(row.score_error for row in found.blocks) > 1e-4


def test_further_outputs_are_nobodys_business(digits: Digits, images: inputs.Images) -> None:
    model = to_onnx(digits("ltp"), opset=17, token_counts=True)
    kept = onnx.helper.make_tensor_value_info("block_03/kept", onnx.TensorProto.BOOL, None)
    model.graph.output.insert(0, kept)
    assert compare(model, digits("ltp"), images, 2).verdict == "equal"


class TestInconclusive:
    def test_nothing_compared(self, digits: Digits, images: inputs.Images) -> None:
        none = dataclasses.replace(images, pixels=images.pixels[:0], names=())
        found = check_compare.compare(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), none)
        assert found.verdict == "inconclusive"
        assert not found.passed()
        with pytest.raises(CheckFailedError, match="nothing was compared"):
            found.require()

    def test_taps_missing(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltmp"), opset=17)
        renamed = model.SerializeToString().replace(b"block_03/count", b"block_03/other")
        found = compare(onnx.ModelProto.FromString(renamed), digits("ltmp"), images)
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
        found = compare(to_onnx(zero, opset=17), zero, images.select(2))
        assert {c.verdict for c in found.comparisons} == {"inconclusive"}

    def test_nan_in_an_image_stays_in_its_row(self, digits: Digits, images: inputs.Images) -> None:
        pixels = images.pixels.copy()
        pixels[2, 0, 0, 0] = np.nan
        broken = dataclasses.replace(images, pixels=pixels)
        found = compare(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), broken, 6)
        verdicts = [c.verdict for c in found.comparisons if c.order == "given" and c.batch_size > 1]
        assert verdicts == ["equal"] * 2 + ["inconclusive"] + ["equal"] * 3
        assert found.verdict == "inconclusive"
        assert not found.passed()
        assert "NaN" in found.headline()
        assert all(0.5 < row.token_ratio < 1.5 for row in found.blocks)
        json.dumps(found.to_json(), allow_nan=False)

    def test_only_nan(self, digits: Digits, images: inputs.Images) -> None:
        nothing = dataclasses.replace(images, pixels=images.pixels * np.float32(np.nan))
        found = compare(to_onnx(digits("ltp"), opset=17), digits("ltp"), nothing, 2)
        assert {one.verdict for one in found.judged()} == {"inconclusive"}
        assert all(row.token_ratio == 0 for row in found.blocks)


class TestInvariance:
    def test_alike(self, digits: Digits, images: inputs.Images) -> None:
        found = compare(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), images, 4)
        assert {(i.batch_size, i.order) for i in found.invariance} == {
            (4, "given"),
            (4, "reversed"),
        }
        assert {i.verdict for i in found.invariance} == {"equal"}
        assert len(found.invariance) == 12
        assert all(i.logit_error < 1e-6 for i in found.invariance)

    def test_batch_1_has_nothing_to_compare(self, digits: Digits, images: inputs.Images) -> None:
        found = compare(to_onnx(digits("ltp"), opset=17), digits("ltp"), images, 1)
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
        found = compare(model, digits("ltp"), images, 3)
        assert {i.verdict for i in found.invariance} == {"fail"}
        assert found.invariance[0].reason.startswith("the logits differ by ")
        assert "fail digit 0 (a 2), batches 3, 3 reversed against alone: the logits" in "".join(
            line for line in found.told() if "against alone" in line
        )

    def test_copies_of_one_image_prove_nothing(self, digits: Digits, images: inputs.Images) -> None:
        model = to_onnx(digits("ltp"), opset=17)
        found = compare(model, digits("ltp"), images.select(1), 3)
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


def test_the_file_itself_is_judged_not_its_tapped_copy(
    digits: Digits, images: inputs.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other logits without the taps, as if onnxruntime had optimised wrongly."""
    right = session.Session.run

    def wrong(self: session.Session, pixels: np.ndarray) -> list[np.ndarray]:
        outputs = right(self, pixels)
        return [outputs[0] + 1e-2] if len(outputs) == 1 else outputs

    monkeypatch.setattr(session.Session, "run", wrong)
    found = compare(to_onnx(digits("ltp"), opset=17), digits("ltp"), images)
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
    found = compare(model, digits("ltp"), images.select(1), 1)
    assert found.verdict == "fail"
    assert re.fullmatch(rf"block 2: the file's prune threshold is {shown}, no number", found.reason)

"""A right file is equal to its checkpoint; what rounding flips is borderline, and only that."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from tests.makers.checks import check
from tests.makers.edge_cases import on_the_threshold, with_threshold

Digits = Callable[[str], Checkpoint]


class TestRight:
    @pytest.mark.parametrize(
        "family", [name for name in families.names() if not families.load(name).cut]
    )
    def test_equal(self, digits: Digits, images: inputs.Images, family: str) -> None:
        model = to_onnx(digits(family), opset=17, token_counts=True)
        found = check(model, digits(family), images, 1, 4)
        assert found.verdict == "equal", found.headline()
        assert found.passed(strict=True)
        found.require()
        assert {(c.batch_size, c.order) for c in found.comparisons} == {
            (1, "given"), (4, "given"), (4, "reversed"),
        }  # fmt: skip
        assert len(found.comparisons) == 18
        assert all(0 < c.errors["logits"] < c.allowed["logits"] < 2e-5 for c in found.comparisons)

    def test_every_block_is_summed_up(self, digits: Digits, images: inputs.Images) -> None:
        found = check(to_onnx(digits("ltmp"), opset=17), digits("ltmp"), images, 3)
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
        found = check(model, checkpoint, images.select(1), 1, 3)
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
        assert first.errors["logits"] < first.allowed["logits"]  # the replay agrees
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
        found = check(to_onnx(checkpoint, opset=17), checkpoint, images, 1, 5)
        assert found.verdict == "borderline", found.headline()
        first = found.comparisons[0]
        assert [flip.decision.block for flip in first.flips] == [0, 1, 2]
        assert all(flip.decision.margin < 1e-15 for flip in first.flips)
        assert first.reason.endswith("; 3 decisions in all")
        assert first.errors["logits"] < first.allowed["logits"]

    def test_excuses_no_other_error(self, digits: Digits, images: inputs.Images) -> None:
        checkpoint = on_the_threshold(digits("ltp"), images, Prune)
        model = to_onnx(checkpoint, opset=17)
        head = next(t for t in model.graph.initializer if t.name == "head.weight")
        head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "head.weight"))
        found = check(model, checkpoint, images.select(1))
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
        found = check(onnx.ModelProto.FromString(named), further, images.select(1))
        assert found.verdict == verdict
        assert (found.comparisons[0].flips[0].decision.margin > 0) == (distance > 0)

    def test_the_bound_is_measured_on_undisputed_tokens(
        self, digits: Digits, images: inputs.Images
    ) -> None:
        """A step whose scores are exact has the least bound, one that is off by more a wider."""
        checkpoint = digits("ltp")
        model = to_onnx(checkpoint, opset=17)
        right = check(model, checkpoint, images.select(2)).blocks[0]
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
        found = check(model, checkpoint, images.select(2)).blocks[0]
        assert right.bound < found.bound == 4 * found.measured
        assert found.bound < found.score_allowed


def test_sharp_attention_is_no_false_alarm(digits: Digits, images: inputs.Images) -> None:
    """Queries 30 times as long: attention logits of some 300, and rounding as much larger."""
    checkpoint = digits("ltmp")
    model = copy.deepcopy(checkpoint.model)
    for block in model.blocks:
        block.attn.qkv.weight[:128] *= 30
        block.attn.qkv.bias[:128] *= 30
    sharp = dataclasses.replace(checkpoint, model=model)
    found = check(to_onnx(sharp, opset=17), sharp, images, 3)
    assert found.passed(), found.headline()
    assert max(row.score_error for row in found.blocks) > 1e-4


def test_further_outputs_are_nobodys_business(digits: Digits, images: inputs.Images) -> None:
    model = to_onnx(digits("ltp"), opset=17, token_counts=True)
    kept = onnx.helper.make_tensor_value_info("block_03/kept", onnx.TensorProto.BOOL, None)
    model.graph.output.insert(0, kept)
    assert check(model, digits("ltp"), images, 2).verdict == "equal"

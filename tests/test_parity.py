"""The check must tell a right file from a wrong one, and a wrong one from rounding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ltmp_export import inputs, onnx_export, parity, report
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.decisions import Disagreement
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.plan import Plan, Prune
from ltmp_export.reference import Reference, margin
from ltmp_export.tokens import PruneDecision

Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def images() -> inputs.Images:
    return inputs.embedded_digits().select(6)


def with_plan(checkpoint: Checkpoint, plan: Plan) -> Checkpoint:
    return dataclasses.replace(checkpoint, plan=plan)


def with_first_prune(checkpoint: Checkpoint, threshold: float) -> Checkpoint:
    plan = checkpoint.plan
    blocks = ((Prune(threshold),), *plan.blocks[1:])
    return with_plan(checkpoint, Plan(plan.family, blocks))


def test_right_file_is_equal(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltmp"), opset=17)
    found = parity.compare(model, digits("ltmp"), images, batch_sizes=(1, 4))
    assert found.verdict == "equal"
    assert found.passed(strict=True)
    assert len(found.comparisons) == 12
    assert {c.batch_size for c in found.comparisons} == {1, 4}
    assert all(0 < c.logit_error < c.allowed_error for c in found.comparisons)
    found.require()


def test_another_threshold_fails_and_says_where(digits: Digits, images: inputs.Images) -> None:
    right = digits("ltp")
    wrong = with_first_prune(right, 2 * right.plan.thresholds()["prune"][0])
    found = parity.compare(onnx_export.to_onnx(wrong, opset=17), right, images, batch_sizes=(3,))
    assert found.verdict == "fail"
    assert not found.passed()
    first = found.of("fail")[0]
    assert first.first_block == 0
    with pytest.raises(CheckFailedError, match=r"digit 0 .* batch 3: block 0 keeps \d+ tokens"):
        found.require()


def test_another_weight_fails_by_its_logits(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltm"), opset=17)
    bias = next(t for t in model.graph.initializer if t.name == "head.bias")
    shifted = numpy_helper.to_array(bias) + np.float32(2e-2)
    bias.CopyFrom(numpy_helper.from_array(shifted, "head.bias"))
    found = parity.compare(model, digits("ltm"), images, batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "logits differ by 0.02" in found.of("fail")[0].reason


def test_nan_fails(digits: Digits, images: inputs.Images) -> None:
    pixels = images.pixels.copy()
    pixels[2, 0, 0, 0] = np.nan
    broken = dataclasses.replace(images, pixels=pixels)
    model = onnx_export.to_onnx(digits("ltmp"), opset=17)
    found = parity.compare(model, digits("ltmp"), broken, batch_sizes=(6,))
    assert [c.verdict for c in found.comparisons] == ["equal"] * 2 + ["fail"] + ["equal"] * 3
    assert "NaN" in found.of("fail")[0].reason
    json.dumps(found.to_json(), allow_nan=False)


def score_of_last_pruned(checkpoint: Checkpoint, images: inputs.Images) -> float:
    """The importance, in float64, of the token of image 0 that comes nearest to being kept."""
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    decision = reference.run(torch.from_numpy(images.pixels[0])).decisions[0][0]
    assert isinstance(decision, PruneDecision)
    return float(decision.score[~decision.chosen].amax())


@pytest.mark.parametrize(("distance", "verdict"), [(1e-9, "borderline"), (1e-3, "fail")])
def test_only_a_close_decision_is_borderline(
    digits: Digits, images: inputs.Images, distance: float, verdict: str
) -> None:
    """File and reference on either side of one token's score, near or far."""
    score = score_of_last_pruned(digits("ltp"), images)
    drops = with_first_prune(digits("ltp"), score + max(distance, 1e-7))
    keeps = with_first_prune(digits("ltp"), score - distance)
    model = onnx_export.to_onnx(drops, opset=17)
    found = parity.compare(model, keeps, images.select(1), batch_sizes=(1,))
    assert found.comparisons[0].first_block == 0
    assert found.verdict == verdict
    assert found.passed() == (verdict == "borderline")
    assert not found.passed(strict=True)


def close_on_either_side(digits: Digits, images: inputs.Images) -> tuple[Checkpoint, Checkpoint]:
    """Two models that differ in one token of image 0, within rounding."""
    score = score_of_last_pruned(digits("ltp"), images)
    return (
        with_first_prune(digits("ltp"), score + 1e-7),
        with_first_prune(digits("ltp"), score - 1e-9),
    )


def test_a_borderline_decision_is_shown_and_the_rest_proved(
    digits: Digits, images: inputs.Images
) -> None:
    drops, keeps = close_on_either_side(digits, images)
    model = onnx_export.to_onnx(drops, opset=17)
    found = parity.compare(model, keeps, images.select(1), batch_sizes=(1,)).comparisons[0]
    assert found.counts[0] == found.expected_counts[0] - 1
    assert [(d.block, d.what) for d in found.differing] == [(0, "stays")]
    assert found.differing[0].distance < parity.BORDERLINE
    assert found.logit_error < found.allowed_error
    assert "block 0 keeps" in found.reason


def test_a_close_decision_excuses_no_other_error(digits: Digits, images: inputs.Images) -> None:
    drops, keeps = close_on_either_side(digits, images)
    model = onnx_export.to_onnx(drops, opset=17)
    head = next(t for t in model.graph.initializer if t.name == "head.weight")
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "head.weight"))
    found = parity.compare(model, keeps, images.select(1), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "with the same decisions the logits differ by" in found.comparisons[0].reason


def test_a_wrong_partner_fails(digits: Digits, images: inputs.Images) -> None:
    """The second-best destination instead of the best: counts stay the same."""
    model = onnx_export.to_onnx(digits("ltm"), opset=17)
    for node in model.graph.node:
        if node.output[0] == "block_02/partner":
            node.op_type = "ArgMin"
    found = parity.compare(model, digits("ltm"), images, batch_sizes=(2,))
    assert found.verdict == "fail"
    reason = found.of("fail")[0].reason
    assert "broken decisions" in reason or "partner" in reason


def test_a_wrong_token_counts_output_fails(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltp"), opset=17, token_counts=True)
    output = next(node for node in model.graph.node if node.output[0] == "token_counts")
    output.op_type = "Neg"
    found = parity.compare(model, digits("ltp"), images, batch_sizes=(2,))
    assert {c.verdict for c in found.comparisons} == {"fail"}
    assert "token counts are not those of its own decisions" in found.comparisons[0].reason


def test_broken_decisions_fail(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltp"), opset=17)
    kept = next(node for node in model.graph.node if node.output[0] == "block_01/kept")
    kept.op_type = "Xor"
    found = parity.compare(model, digits("ltp"), images, batch_sizes=(2,))
    assert found.verdict == "fail"


def test_nothing_compared_is_inconclusive(digits: Digits, images: inputs.Images) -> None:
    none = dataclasses.replace(images, pixels=images.pixels[:0], names=())
    model = onnx_export.to_onnx(digits("ltmp"), opset=17)
    found = parity.compare(model, digits("ltmp"), none)
    assert found.verdict == "inconclusive"
    assert not found.passed()
    with pytest.raises(CheckFailedError, match="nothing was compared"):
        found.require()
    suite = ElementTree.fromstring(report.to_junit(found))
    assert suite.get("errors") == "1"


def test_a_graph_without_the_named_counts_says_so(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltmp"), opset=17)
    renamed = model.SerializeToString().replace(b"block_03/count", b"block_03/other")
    with pytest.raises(InputError, match="no tensor block_03/count"):
        parity.compare(onnx.ModelProto.FromString(renamed), digits("ltmp"), images)


def test_batch_sizes_must_be_positive(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltmp"), opset=17)
    with pytest.raises(InputError, match="at least 1"):
        parity.compare(model, digits("ltmp"), images, batch_sizes=(2, 0))


def test_json_is_strict_where_a_score_is_nan(digits: Digits, images: inputs.Images) -> None:
    model = onnx_export.to_onnx(digits("ltp"), opset=17)
    found = parity.compare(model, digits("ltp"), images.select(1), batch_sizes=(1,))
    nan = Disagreement(0, "stays", 3, np.nan, 0.1, np.nan)
    first = dataclasses.replace(found.comparisons[0], differing=(nan,), margin=np.inf)
    document = dataclasses.replace(found, comparisons=(first,)).to_json()
    json.dumps(document, allow_nan=False)
    assert document["comparisons"][0]["differing"][0]["distance"] is None


def test_junit_has_a_case_for_each_comparison(digits: Digits, images: inputs.Images) -> None:
    right = digits("ltp")
    wrong = with_first_prune(right, 2 * right.plan.thresholds()["prune"][0])
    model = onnx_export.to_onnx(wrong, opset=17)
    found = parity.compare(model, right, images, batch_sizes=(1, 2))
    suite = ElementTree.fromstring(report.to_junit(found))
    assert suite.get("tests") == "12"
    assert suite.get("failures") == str(len(found.of("fail")))
    assert len(suite.findall("testcase/failure")) == len(found.of("fail")) > 0


def test_margin_is_relative_and_knows_empty_and_nan() -> None:
    def pruned(*scores: float) -> PruneDecision:
        score = torch.tensor(scores)
        return PruneDecision(0.25, score, score > 0.25)

    assert margin(pruned(torch.inf, 0.5, 0.24)) == pytest.approx(0.01 / 0.5)
    assert margin(pruned(torch.inf)) == torch.inf
    assert np.isnan(margin(pruned(torch.inf, torch.nan)))

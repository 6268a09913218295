"""The check must find each wrong static graph, and name where it is wrong.

What it gives for these images is shown to be something else than what the right graph gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.parity.report import CheckReport
from tests.makers.mutations import change_stored
from tests.makers.static_faults import FAULTS

Digits = Callable[[str], Checkpoint]

IMAGES = 2
CHANGED = 1e-4  # of a logit; 5.1e-6 is the most that right graphs are off by (test_golden)

# Budgets for the digits' ltmp. With the first each image here loses tokens in block 0 and most do
# later; with the other none does, and from block 1 on there are empty slots.
BUDGETS = {"tight": (40, 22, 18, 12, 9, 8), "ample": (65, 40, 36, 30, 24, 20)}
MODELS = ("m", "p", "mp", "pm", "patchmerger", *BUDGETS)


def taken(digits: Digits, model: str) -> Checkpoint:
    """The digits of a family, or its ltmp under a budget."""
    if model not in BUDGETS:
        return digits(model)
    learned = digits("ltmp")
    return dataclasses.replace(learned, plan=learned.plan.within(BUDGETS[model]))


def images_of(checkpoint: Checkpoint) -> inputs.Images:
    return inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, IMAGES)


def checked(model: onnx.ModelProto, checkpoint: Checkpoint) -> CheckReport:
    return compare.compare(model, checkpoint, images_of(checkpoint), batch_sizes=(2,))


def outputs(model: onnx.ModelProto, checkpoint: Checkpoint, seen: str) -> list[NDArray[Any]]:
    """What a graph gives, and one of its inner tensors; as written, not optimised."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    if seen:
        tapped.graph.output.append(onnx.ValueInfoProto(name=seen))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(tapped.SerializeToString(), options, providers=providers)
    given: list[NDArray[Any]] = session.run(None, {"images": images_of(checkpoint).pixels})
    return given


@pytest.mark.parametrize("model", MODELS)
def test_the_right_graph(digits: Digits, model: str) -> None:
    checkpoint = taken(digits, model)
    report = checked(to_onnx(checkpoint, opset=17, token_counts=True), checkpoint)
    assert report.verdict == "equal", report.headline()
    lost = [comparison.overflow > 0 for comparison in report.comparisons]
    assert lost == [model == "tight"] * len(lost)


@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name, fault in FAULTS.items() for model in fault.models]
)
def test_a_wrong_graph(digits: Digits, name: str, model: str) -> None:
    checkpoint, fault = taken(digits, model), FAULTS[name]
    wrong = fault.mutate(checkpoint, fault.block)
    right = to_onnx(checkpoint, opset=17)
    seen = fault.seen and f"block_{fault.block:02d}/{fault.seen}"
    pairs = zip(outputs(wrong, checkpoint, seen), outputs(right, checkpoint, seen), strict=True)
    assert any(not np.allclose(a, b, rtol=0, atol=CHANGED) for a, b in pairs)
    report = checked(wrong, checkpoint)
    assert report.verdict == "fail"
    where = fault.where or f"block {fault.block}"
    assert {comparison.where for comparison in report.of("fail")} == {where}
    assert f"{where}: " in report.headline()


def test_a_query_that_rounding_hides(digits: Digits) -> None:
    """By the stored number: no decision and no logit of these images tells."""
    checkpoint = digits("patchmerger")
    model = to_onnx(checkpoint, opset=17)

    def change(array: NDArray[Any]) -> None:
        array[3, 5] = np.nextafter(array[3, 5], np.float32(1))

    change_stored(model, "cluster_layers.1.queries", change)
    report = checked(model, checkpoint)
    assert {comparison.verdict for comparison in report.comparisons} == {"equal"}
    assert report.verdict == "fail"
    assert "cluster_layers.1.queries differs from the checkpoint's" in report.headline()

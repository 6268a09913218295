"""Decisions freed of a batch's padding, and forced on the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ltmp_export import decisions, families, onnx_export, runtime
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.plan import Merge, Plan, Prune
from ltmp_export.reference import Reference

Digits = Callable[[str], Checkpoint]


@pytest.mark.parametrize("family", families.names())
def test_the_files_decisions_are_those_of_the_reference(
    digits: Digits, digit_images: Tensor, family: str
) -> None:
    checkpoint = digits(family)
    images = digit_images[::7]
    model = onnx_export.to_onnx(checkpoint, opset=17)
    outputs = runtime.TappedSession(model, decisions.taps(checkpoint.plan)).run(images.numpy())
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    for row, image in enumerate(images):
        taken = decisions.choices(checkpoint.plan, outputs, row, 65)
        trace = reference.run(image)
        for own, choice in zip(sum(trace.decisions, ()), sum(taken, ()), strict=True):
            assert torch.equal(own.chosen, choice.chosen)
        assert decisions.disagreements(trace, taken) == []
        assert reference.run(image, taken).counts == trace.counts


def test_padding_is_taken_off() -> None:
    plan = Plan("ltmp", ((Merge(0.5), Prune(0.1)),))
    tensors = {
        "block_00/merged": np.array([[False, True, False, True]]),  # the last slot is no token
        "block_00/partner": np.array([[0, 1, 0, 9]]),
        # four slots of sources, of which 3 are tokens and one of these merged; then destinations
        "block_00/kept": np.array([[True, False, True, True, False, True, True]]),
    }
    merge, prune = decisions.choices(plan, tensors, 0, 5)[0]
    assert merge.partner is not None
    assert merge.chosen.tolist() == [False, True, False]
    assert merge.partner.tolist() == [0, 1, 0]
    assert prune.chosen.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("merged", "partner", "kept", "message"),
    [
        ([True, False], [0, 0], [True] * 3, "takes the class token"),
        ([False, True], [0, 1], [True] * 3, "a row beyond them"),
        ([False, True], [0, -1], [True] * 3, "a row beyond them"),
        ([False], [0], [True] * 3, "decides about 1 sources only"),
        ([False, False], [0, 0], [False, True, True], "prunes the class token"),
    ],
)
def test_impossible_decisions_are_refused(
    merged: list[bool], partner: list[int], kept: list[bool], message: str
) -> None:
    plan = Plan("ltmp", ((Merge(0.5), Prune(0.1)),))
    tensors = {
        "block_00/merged": np.array([merged]),
        "block_00/partner": np.array([partner]),
        "block_00/kept": np.array([kept]),
    }
    with pytest.raises(ValueError, match=message):
        decisions.choices(plan, tensors, 0, 3)


def test_forced_decisions_are_taken_and_disagreements_measured(
    digits: Digits, digit_images: Tensor
) -> None:
    checkpoint = digits("ltmp")
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    model = onnx_export.to_onnx(checkpoint, opset=17)
    outputs = runtime.TappedSession(model, decisions.taps(checkpoint.plan)).run(
        digit_images[:1].numpy()
    )
    merged = outputs["block_01/merged"][0]
    source = int(np.flatnonzero(merged)[0])
    best = int(outputs["block_01/partner"][0, source])
    outputs["block_01/partner"][0, source] = 0 if best else 1
    own = reference.run(digit_images[0]).decisions[1][0]
    taken = decisions.choices(checkpoint.plan, outputs, 0, 65)
    first = decisions.disagreements(reference.run(digit_images[0], taken), taken)[0]
    assert (first.block, first.what, first.token) == (1, "partner", source)
    assert first.score == pytest.approx(float(own.score[source]))
    assert first.threshold < first.score
    largest = float(own.score[1:][own.score[1:].isfinite()].abs().max())
    assert first.distance == pytest.approx((first.score - first.threshold) / largest)

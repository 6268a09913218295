"""What a file computed for one image, freed of the batch's padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import taps
from ltmp_export.parity.decisions import disagreements
from ltmp_export.plan.plan import Plan, resizes
from ltmp_export.reference import Reference
from ltmp_export.runtimes import recording
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune

Digits = Callable[[str], Checkpoint]
ONE_BLOCK = Plan("ltmp", ((Merge(0.5), Prune(0.1)),))


@pytest.mark.parametrize("family", families.names())
def test_a_record_is_what_the_reference_computes(
    digits: Digits, digit_images: Tensor, family: str
) -> None:
    checkpoint = digits(family)
    images = digit_images[::7]
    model = to_onnx(checkpoint, opset=17)
    outputs = recording.TappedSession(model, taps.names(checkpoint.plan)).run(images.numpy())
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    traces = [reference.run(image) for image in images]
    resized = any((size > 1).any() for trace in traces for size in trace.sizes)
    for row, (image, trace) in enumerate(zip(images, traces, strict=True)):
        record = taps.read(checkpoint.plan, outputs, row, 65)
        assert record.broken == ""
        assert record.counts == trace.counts
        np.testing.assert_allclose(record.embedded, trace.embedded, atol=1e-5)
        for number, block in enumerate(record.blocks):
            np.testing.assert_allclose(block.tokens, trace.tokens[number], atol=1e-4)
            sized = resizes(checkpoint.plan.blocks[number])
            assert (block.size is None) == (number == 5 or not resized or not sized)
            if block.size is not None:
                off = 1e-4 if checkpoint.plan.fractional else 0
                np.testing.assert_allclose(block.size, trace.sizes[number], rtol=0, atol=off)
            for step, decision in zip(block.steps, trace.decisions[number], strict=True):
                assert list(disagreements(number, decision, step.choice)) == []
                np.testing.assert_allclose(step.score[1:], decision.score[1:], atol=1e-5)
        assert reference.run(image, record.choices()).counts == trace.counts


def tensors(
    merged: list[bool], partner: list[int], kept: list[bool], counts: tuple[int, ...]
) -> dict[str, NDArray[Any]]:
    """One block of a batch whose first image is the one told of, with room for the others."""
    rows = np.arange(2.0 * sum(counts), dtype=np.float32).reshape(-1, 2)
    named = {
        "merged": np.array([merged], bool),
        "partner": np.array([partner], np.int64),
        "kept": np.array([kept]),
        "similarity": np.array([[0.9] * len(merged)], np.float32),
        "merged_importance": np.array([np.arange(len(kept))], np.float32),
        "count": np.array(counts),
        "tokens": rows,
        "size": np.ones(len(rows), np.float32),
    }
    found: dict[str, NDArray[Any]] = {f"block_00/{name}": value for name, value in named.items()}
    whole = {"embed/tokens": np.zeros((9, 2)), "logits": np.zeros((len(counts), 3))}
    return found | whole


def test_padding_is_taken_off() -> None:
    found = tensors(
        merged=[True, False, True],  # of the sources behind the class token; the last is no token
        partner=[1, 0, 9],
        # the class token; three slots of sources, 2 of them tokens, one merged; then destinations
        kept=[True, False, True, True, False, True, True],
        counts=(3, 2),
    )
    record = taps.read(ONE_BLOCK, found, 0, 5)
    assert record.broken == ""
    merge, prune = record.blocks[0].steps
    assert merge.choice.partner is not None
    assert merge.choice.chosen.tolist() == [False, True, False]
    assert merge.choice.partner.tolist() == [0, 1, 0]
    assert merge.score.tolist() == [-np.inf, np.float32(0.9), np.float32(0.9)]
    assert prune.choice.chosen.tolist() == [True, True, False, True]
    assert prune.score.tolist() == [0, 2, 4, 5]
    assert record.blocks[0].tokens.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert record.choices() == ((merge.choice, prune.choice),)


@pytest.mark.parametrize(
    ("merged", "partner", "kept", "counts", "message"),
    [
        ([True], [1], [True] * 3, (3,), "a row beyond them"),
        ([True], [-1], [True] * 3, (3,), "a row beyond them"),
        ([], [], [True] * 3, (3,), "decides about 0 sources only"),
        ([False], [0], [False, True, True], (2,), "a protected token is pruned"),
        ([False], [0], [True] * 3, (2,), "2 tokens are counted, 3 left"),
    ],
)
def test_impossible_decisions_end_the_record(
    merged: list[bool], partner: list[int], kept: list[bool], counts: tuple[int, ...], message: str
) -> None:
    record = taps.read(ONE_BLOCK, tensors(merged, partner, kept, counts), 0, 3)
    assert record.blocks == ()
    assert message in record.broken


def test_rows_that_are_not_those_counted_end_the_record() -> None:
    found = tensors([False], [0], [True] * 3, (3,))
    found["block_00/tokens"] = found["block_00/tokens"][:2]
    assert "2 rows of tokens for counts of 3" in taps.read(ONE_BLOCK, found, 0, 3).broken


def test_names_follow_the_plan() -> None:
    pruned_first = Plan("ltpm", ((Prune(0.1), Merge(0.5)),))
    assert "block_00/importance" in taps.names(pruned_first)
    assert "block_00/merged_importance" not in taps.names(pruned_first)
    assert "block_00/size" not in taps.names(Plan("ltp", ((Prune(0.1),),)))
    assert list(taps.thresholds(pruned_first)) == [
        (0, "prune", "block_00/prune_threshold", 0.1),
        (0, "merge", "block_00/merge_threshold", 0.5),
    ]

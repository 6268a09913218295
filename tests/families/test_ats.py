"""ATS: per image or static, as the original is, and what must be found (`golden_sets`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from ltmp_export import check, export
from ltmp_export.backbones.vit import attention
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.graph import single
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.single import Single
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.scores import CLASS_VALUES
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.sample import points
from ltmp_export.steps.sample.eager import take
from ltmp_export.steps.sample.step import Sample
from ltmp_export.steps.tokens import Tokens
from tests.families.test_reducers import FILE, REFERENCE
from tests.makers.golden_sets import golden

BOUND = (197, 138, 97, 68, 68)


def test_reference_is_the_original() -> None:
    one = golden("ats-a")
    for number, trace in enumerate(one.traces()):
        assert np.abs(trace.logits.numpy() - one.arrays["logits64"][number]).max() < REFERENCE
        taken = [decisions[0] for decisions in trace.decisions if decisions]
        for stage, decision in enumerate(taken):
            theirs = one.arrays[f"stage{stage}_kept"][number]
            rows = decision.chosen.nonzero()[1:, 0] - 1
            assert rows.tolist() == theirs[theirs >= 0].tolist()
    assert one.checkpoint.plan.counts(197, 1) == BOUND


@pytest.mark.parametrize("form", ["any batch", "single", "within its points", "ample"])
def test_file_is_the_original(form: str) -> None:
    """Every image as if alone, whatever is in its batch."""
    one, keep = golden("ats-a"), {"within its points": BOUND, "ample": (197, 150, 120, 110, 100)}
    checkpoint, size = one.checkpoint, 1 if form == "single" else None
    if form in keep:
        checkpoint = replace(checkpoint, plan=checkpoint.plan.within(keep[form]))
    wanted, counts = one.arrays["logits64"], [trace.counts for trace in one.traces()]
    for opset in (16, 17, opsets.newest_opset()) if form == "any batch" else (17,):
        model = to_onnx(
            checkpoint, opset=opset, batch_size=size, token_counts=True,
            outputs=["logits", "token_map"],
        )  # fmt: skip
        session, names = Session(model, threads=1), [o.name for o in model.graph.output]
        for batch in (1,) if size == 1 else (1, 3, 6) if opset == 17 else (3,):
            runs = [session.run(one.pixels[at : at + batch]) for at in range(0, 6, batch)]
            given = {n: np.concatenate([run[i] for run in runs]) for i, n in enumerate(names)}
            assert np.abs(given["logits"] - wanted).max() < FILE
            assert one.holds(given["token_map"])
            assert given["token_counts"].tolist() == [list(c) for c in counts]
            assert not given.get("overflow", np.zeros(1)).any()


def test_a_budget_drops_what_gets_least_attention() -> None:
    one = golden("ats-a")
    checkpoint = replace(one.checkpoint, plan=one.checkpoint.plan.within((197, 128, 90, 64, 60)))
    report = compare.compare(
        to_onnx(checkpoint, opset=17), checkpoint, one.images(2), batch_sizes=(2,)
    )
    assert report.verdict == "equal", report.headline()
    assert any(comparison.overflow for comparison in report.comparisons)


def test_commands(tmp_path: Path, digits_base: Path) -> None:
    """Untrained, of any plain ViT: static files lose no token without a budget."""
    choices = Choices(num_heads=2, family="ats", keep_rate=0.5, merge_at=(1, 3), mean=(0.5,),
                      std=(0.5,))  # fmt: skip
    out = tmp_path / "ats.onnx"
    export(digits_base, out, choices=choices, mode="static", check=False)
    report = check(out, digits_base)
    assert report.keep_tokens == (65, 33, 33, 17, 17, 17)
    assert report.verdict == "equal", report.headline()


def test_samples_of_each_place(digits_base: Path) -> None:
    found = load_checkpoint(digits_base, Choices(num_heads=2, family="ats", keep_rate=0.7,
                                                 merge_at=(1, 3)))  # fmt: skip
    assert found.plan == Plan("ats", ((), (Sample(45),), (), (Sample(32),), (), ()))


# Points: for S = 3 and 7 rounding lets the last one in; golden numbers of torch.arange.
@pytest.mark.parametrize(("samples", "number"), [(2, 1), (3, 3), (4, 3), (7, 7), (138, 137)])
def test_points(samples: int, number: int) -> None:
    twice = 2 * samples
    theirs = torch.arange(1 / twice, (twice - 1) / twice, 2 / twice, dtype=torch.float64)
    own = Sample(samples).points
    assert len(own) == number == len(theirs)
    assert np.allclose(own, theirs.numpy(), rtol=0, atol=1e-15)


def test_by_hand() -> None:
    """Shares 1/2, 3/4, 3/4, 1; points 1/8, 3/8, 5/8: the third is as near to the first as to the
    next two, and the first two take the first, too.
    """
    values = torch.tensor([torch.inf, 2.0, 1.0, 0.0, 1.0])
    tokens = Tokens(torch.arange(5.0)[:, None], torch.ones(5), {CLASS_VALUES: values})
    left, decision = take(Sample(4, 0.0), tokens, None, {})
    assert left.x[:, 0].tolist() == [0.0, 1.0]
    lead = decision.score[1:].tolist()
    assert lead[0] == 0.25
    assert -1e-30 < lead[1] < 0
    assert lead[2] == lead[1]
    assert lead[3] == -0.25


def _unnormalised(g: GraphBuilder, step: Sample, scores: Name, axis: int, name: str) -> Name:
    running = g.op("CumSum", scores, g.index(axis))
    return g.op("Div", running, g.number(1.1), name=name)


def _without_length(g: GraphBuilder, layout: Any, weights: Name, values: Name) -> Name:
    of_class = g.op("Gather", weights, g.index(0), axis=2)
    return g.reduce("ReduceSum", of_class, [1], name="class_values")


def _all_points(step: Sample) -> tuple[float, ...]:
    return tuple((2 * j + 1) / (2 * step.samples) for j in range(step.samples))


WRONG: dict[str, tuple[Any, str, Any]] = {
    "normalised otherwise": (points, "shares", _unnormalised),
    "length of values left out": (attention, "_class_values", _without_length),
    "S points": (Sample, "points", property(_all_points)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_graphs(wrong: str) -> None:
    one, (place, name, other) = golden("ats-a"), WRONG[wrong]
    with mock.patch.object(place, name, other):
        model = to_onnx(one.checkpoint, opset=17)
    report = compare.compare(model, one.checkpoint, one.images(2), batch_sizes=(1,))
    assert report.verdict == "fail"
    assert "block 1" in report.headline()


def test_duplicates_that_are_kept() -> None:
    """The last token stands twice, as if two points had each brought it along."""
    one, selected = golden("ats-a"), single.selected

    def twice(g: GraphBuilder, tokens: Single, stay: Name) -> Single:
        left = selected(g, tokens, stay)
        return replace(left, x=g.op("Concat", left.x, g.slice(left.x, 0, -1), axis=0))

    with mock.patch.object(single, "selected", twice):
        model = to_onnx(one.checkpoint, opset=17, batch_size=1)
    report = compare.compare(model, one.checkpoint, one.images(2), batch_sizes=(1,))
    assert report.verdict == "fail"
    assert "block 1" in report.headline()

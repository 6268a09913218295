"""The check where other rows than one class token are protected: right files, and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import onnx
import pytest

from ltmp_export import families
from ltmp_export.backbones.vit import embedding
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import selected, slots
from ltmp_export.graph.slots import Slots
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.parity.report import CheckReport
from ltmp_export.plan.step import Learned
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.steps.merge_most import slots as merge_most
from tests.makers import random_vits
from tests.makers.random_vits import Case
from tests.oracles.agreement import planned

Wrong = Callable[[Callable[..., Any]], Callable[..., Any]]
SHAPE = {"depth": 2, "img_size": (16, 12)}
CASES = {
    0: Case("none", 51, SHAPE | {"class_token": False, "global_pool": "avg"}),
    2: Case("distilled", 52, SHAPE | {"distilled": True}),
    5: Case("registers", 53, SHAPE | {"reg_tokens": 4, "no_embed_class": True}),
}


@cache
def source(rows: int, family: str) -> Checkpoint:
    """A model with so many protected rows, under thresholds amid its scores or a rate."""
    model, vit = random_vits.build(CASES[rows])
    if family in families.counted():
        plan = planned(family, "3,2", vit)
    else:
        plan = random_vits.middle_plan(model, random_vits.images(vit, rows), family, rows)
    return random_vits.bare(model, vit, plan)


def budgeted(checkpoint: Checkpoint) -> Checkpoint:
    tokens = checkpoint.vit.tokens
    return replace(checkpoint, plan=checkpoint.plan.within((tokens - 4, tokens - 6)))


def images(checkpoint: Checkpoint) -> Images:
    pixels = random_vits.images(checkpoint.vit, 7).numpy()
    return Images(pixels, None, tuple(map(str, range(len(pixels)))), "drawn")


def checked(
    model: onnx.ModelProto, checkpoint: Checkpoint, precision: Precision | None = None
) -> CheckReport:
    return compare.compare(
        model, checkpoint, images(checkpoint), batch_sizes=(1, 3), precision=precision
    )


@pytest.mark.parametrize(
    ("rows", "family"),
    [(0, "ltmp"), (0, "m"), (0, "mp"), (2, "ltmp"), (2, "p"), (5, "ltpm"), (5, "pm"), (5, "m")],
)
def test_right_files_are_equal(rows: int, family: str) -> None:
    checkpoint = source(rows, family)
    report = checked(to_onnx(checkpoint, opset=17), checkpoint)
    assert report.verdict == "equal", report.headline()
    if family in families.learned():
        within = budgeted(checkpoint)
        report = checked(to_onnx(within, opset=17), within)
        assert report.verdict == "equal", report.headline()
        assert report.keep_tokens == within.plan.keep


@pytest.mark.parametrize("precision", [Precision(INT8), Precision(FP16)], ids=["int8", "fp16"])
@pytest.mark.parametrize(("rows", "family"), [(0, "ltmp"), (5, "pm")])
def test_lower_precision_is_bounded(rows: int, family: str, precision: Precision) -> None:
    checkpoint = source(rows, family)
    forms = [checkpoint, budgeted(checkpoint)] if family in families.learned() else [checkpoint]
    for form in forms:
        made, asked = form, precision
        if precision.kind == INT8:
            made, asked = quantise.prepare(form, images(form), precision)
        report = checked(to_onnx(made, opset=17, precision=asked), form, asked)
        assert report.verdict in ("bounded", "equal"), report.headline()


def everything_goes(rows: int) -> Checkpoint:
    """Thresholds amid the scores, then one above everything."""
    checkpoint = source(rows, "ltmp")
    plan = checkpoint.plan
    last = tuple(step.at(1.0) for step in plan.blocks[-1] if isinstance(step, Learned))
    return replace(checkpoint, plan=replace(plan, blocks=(*plan.blocks[:-1], last)))


def with_rows(by: int) -> Wrong:
    """As if so many more rows were protected, wherever rows are packed."""
    return lambda right: (
        lambda *given, **named: replace(
            found := right(*given, **named), protected=found.protected + by
        )
    )


def least_survives(right: Callable[..., str]) -> Callable[..., str]:
    return lambda g, importance, places, protected: g.op(
        "Equal", places, g.op("ArgMin", importance, axis=1, keepdims=1)
    )


def one_less_stays(right: Callable[..., str]) -> Callable[..., str]:
    return lambda g, importance, places, protected: right(g, importance, places, protected - 1)


def other_order(right: Callable[..., Slots]) -> Callable[..., Slots]:
    return lambda g, step, *given: right(g, replace(step, ranked=not step.ranked), *given)


def rolled(right: Callable[..., str]) -> Callable[..., str]:
    """Another row than the class token stands in front."""
    return lambda g, places, protected, number: g.op(
        "Mod",
        g.op("Add", right(g, places, protected, number), g.index(1)),
        g.index(protected + number),
    )


# What is written wrongly, of which model.
WRONG: tuple[tuple[str, Checkpoint, Any, str, Wrong], ...] = (
    ("fewer are protected", source(5, "ltmp"), embedding, "fixed_layout", with_rows(-2)),
    ("fewer are protected, pruned first", source(5, "ltpm"), embedding, "fixed_layout",
     with_rows(-2)),
    ("some are protected", source(0, "ltmp"), embedding, "fixed_layout", with_rows(2)),
    ("as with a class token", source(0, "ltm"), embedding, "fixed_layout", with_rows(1)),
    ("another survives", everything_goes(0), slots, "spared", least_survives),
    ("a register goes", everything_goes(5), slots, "spared", one_less_stays),
    ("a register goes under a budget", budgeted(everything_goes(5)), slots, "spared",
     one_less_stays),
    ("unmerged in their order", source(0, "m"), merge_most, "_unmerged", other_order),
    ("unmerged by rank", source(5, "m"), merge_most, "_unmerged", other_order),
    ("another in front", source(5, "pm"), selected, "behind_protected", rolled),
)  # fmt: skip


@pytest.mark.parametrize(
    ("checkpoint", "owner", "name", "wrong"), [one[1:] for one in WRONG], ids=[w[0] for w in WRONG]
)
def test_wrong_graphs_are_found(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint, owner: Any, name: str, wrong: Wrong
) -> None:
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    report = checked(to_onnx(checkpoint, opset=17), checkpoint)
    assert report.verdict == "fail"
    assert {comparison.where[:5] for comparison in report.of("fail")} == {"block"}

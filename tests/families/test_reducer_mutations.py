"""Wrong graphs of public reducers, each of which `check` must find, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest import mock

import onnx
import pytest

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.cluster import slots as cluster
from ltmp_export.steps.fuse import slots as fuse
from ltmp_export.steps.medoids import slots as medoids
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.predict import slots as predict
from ltmp_export.steps.slim import slots as slim
from tests.makers.golden_sets import Golden, golden

Write = Callable[..., Name]


@contextmanager
def writing(module: ModuleType, method: str, change: Callable[..., Name]) -> Iterator[None]:
    """A step that writes otherwise: `change` is given the builder's method and its arguments."""
    write, own = module.write, getattr(GraphBuilder, method)

    def wrong(g: GraphBuilder, *rest: Any) -> Any:
        def changed(*given: Any, **named: Any) -> Name:
            return change(lambda *a, **k: own(g, *a, **k), *given, **named)

        with mock.patch.object(g, method, changed):
            return write(g, *rest)

    with mock.patch.object(module, "write", wrong):
        yield


def found(one: Golden, model: onnx.ModelProto) -> str:
    """What the check says of a wrong file."""
    report = compare.compare(model, one.checkpoint, one.images(2), batch_sizes=(1,))
    assert report.verdict == "fail"
    return report.headline()


@pytest.mark.parametrize("name", ["topk-a", "evit-a"])
def test_kept_tokens_in_another_order(name: str) -> None:
    one, taken = golden(name), slots.taken

    def ascending(g: GraphBuilder, tokens: Any, places: Name, number: int) -> Any:
        return taken(g, tokens, slots.ascending(g, places, number), number)

    with mock.patch.object(slots, "taken", ascending):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def test_a_fused_token_that_is_normalised() -> None:
    def divided(own: Write, kind: str, *given: Name, **named: Any) -> Name:
        if kind != "MatMul":
            return own(kind, *given, **named)
        shares = own("Softmax", own("Log", given[0]), axis=-1)
        return own(kind, shares, *given[1:], **named)

    one = golden("evit-a")
    with writing(fuse, "op", divided):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def test_the_wrong_half_pooled() -> None:
    def other(own: Write, x: Name, axis: int, start: int, stop: int | None = None) -> Name:
        if axis != 2 or stop == 1:
            return own(x, axis, start, stop)
        return own(x, axis, 24) if stop else own(x, axis, 0, 24)

    one = golden("dyvit-a")
    with writing(predict, "slice", other):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def test_a_softmax_over_the_wrong_axis() -> None:
    def over_targets(own: Write, kind: str, *given: Name, **named: Any) -> Name:
        return own(kind, *given, **(named | {"axis": 1} if kind == "Softmax" else named))

    one = golden("sit-a")
    with writing(slim, "op", over_targets):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def test_densities_that_are_all_alike() -> None:
    def without(own: Write, kind: str, *given: Name, **named: Any) -> Name:
        return own("Sub" if kind == "Neg" else kind, *given, *given[: kind == "Neg"], **named)

    one = golden("dpcknn-a")
    with writing(cluster, "op", without):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def _one_round_fewer(plan: Plan) -> Plan:
    return replace(plan, before={at: Medoids(s.tokens, s.rounds - 1) for at, s in _placed(plan)})


def _placed(plan: Plan) -> list[tuple[int, Medoids]]:
    return [(at, step) for at, step in plan.before.items() if isinstance(step, Medoids)]


def test_a_round_of_clustering_fewer() -> None:
    one = golden("kmedoids-a")
    model = to_onnx(replace(one.checkpoint, plan=_one_round_fewer(one.checkpoint.plan)), opset=17)
    assert "block 1" in found(one, model)


@pytest.mark.parametrize("wrong", ["unweighted", "over members"])
def test_other_costs(wrong: str) -> None:
    """Without attention, or of distances within a cluster alone."""
    seen: dict[str, tuple[Name, ...]] = {}

    def changed(own: Write, kind: str, *given: Name, **named: Any) -> Name:
        if wrong == "unweighted" and named.get("name") == "cost":
            return own("Identity", given[1], **named)
        if kind == "Where" and wrong == "over members":
            weight = own("Cast", given[0], to=onnx.TensorProto.FLOAT)
            sums = own("MatMul", weight, seen["apart"][0])
            column = own("Unsqueeze", seen["cost"][0], seen["of each"][1])
            nothing = own("Sub", given[1], given[1])  # whose tensor has to be there
            given = (given[0], own("Add", own("Mul", sums, column), nothing), given[2])
        made = own(kind, *given, **named)
        if kind == "Sqrt":
            seen["apart"] = (made,)
        elif named.get("name") == "cost":
            seen["cost"] = given
        elif kind == "Unsqueeze" and "of each" not in seen:
            seen["of each"] = given
        return made

    one = golden("kmedoids-a")
    with writing(medoids, "op", changed):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


@pytest.mark.parametrize("rows", [(0, 1), (1, None)])
def test_attention_of_other_rows(rows: tuple[int, int | None]) -> None:
    """Of the class row alone, or of all others."""

    def importance(self: Layout, weights: Name, heads: int) -> Name:
        some = self.g.slice(weights, 2, *rows)
        return self.g.reduce("ReduceMean", some, [1, 2], name="importance")

    one = golden("kmedoids-a")
    with mock.patch.object(Layout, "importance", importance):
        model = to_onnx(one.checkpoint, opset=17)
    assert "block 1" in found(one, model)


def test_sizes_forgotten_after_the_first_merge() -> None:
    """In a block that does not merge itself."""
    one = golden("tome-a")
    model = to_onnx(one.checkpoint, opset=17)
    nodes = model.graph.node
    at = next(i for i, node in enumerate(nodes) if "block_04/attn/Cast" in node.output)
    ones = onnx.helper.make_node("Div", ["block_03/size"] * 2, ["block_04/attn/ones"])
    nodes[at].input[0] = ones.output[0]
    nodes.insert(at, ones)
    assert "block 4" in found(one, model)

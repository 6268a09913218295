"""Wrong graphs of public reducers, each of which `check` must find, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import onnx
import pytest

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.steps.cluster import slots as cluster
from ltmp_export.steps.fuse import slots as fuse
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

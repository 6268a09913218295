"""Forms of operators for runtimes that lack one, or refuse it as it stands in files.

Each gives the same bits in onnxruntime as the operator that it stands for, but costs nodes there.
What costs nothing is how every file is written. `FORMS` is the only place that says which runtime
needs which form, why, and the version that this was seen in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
from onnx import TensorProto, helper

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.targets import ANY, IREE, MNN, TRACT, TVM

Attributes: TypeAlias = Mapping[str, Any]
# The operator, its inputs and attributes, which gives what the other gave.
Last: TypeAlias = tuple[str, tuple[Name, ...], Attributes]


@dataclass(frozen=True)
class Form:
    """Another form of an operator.

    Attributes:
        operator: Which.
        targets: The runtimes that need it.
        reason: Why, with the version.
        write: Writes all of it but the last operator, of the inputs and attributes of the other.
        only: How the names of what it gives begin, where only those need it.
        having: An attribute that those have that need it.
    """

    operator: str
    targets: tuple[str, ...]
    reason: str
    write: Callable[[GraphBuilder, tuple[Name, ...], Attributes], Last]
    only: str = ""
    having: str = ""


def _compress(g: GraphBuilder, inputs: tuple[Name, ...], attributes: Attributes) -> Last:
    """Of values all axes, or one, at the places of what is true of [n]."""
    values, mask = inputs
    axis = attributes.get("axis")
    if axis is None:
        values = g.reshape(values, -1)
    return "Gather", (values, g.reshape(g.op("NonZero", mask), -1)), {"axis": axis or 0}


def _hardmax(g: GraphBuilder, inputs: tuple[Name, ...], _: Attributes) -> Last:
    """[S, D] → 1 at the first of each row's largest, else 0."""
    (values,) = inputs
    count = g.op("Gather", g.op("Shape", values), g.index(1), axis=0)
    places = g.op("Range", g.index(0), count, g.index(1))
    first = g.op("ArgMax", values, axis=1, keepdims=1)
    return "Cast", (g.op("Equal", places, first),), {"to": TensorProto.FLOAT}


def _ascending(g: GraphBuilder, inputs: tuple[Name, ...], attributes: Attributes) -> Last:
    """Places, which are whole, in order by their float32 numbers, exact below 2^24."""
    values, number = g.op("Cast", inputs[0], to=TensorProto.FLOAT), inputs[1]
    ordered, _ = g.ops("TopK", values, number, names=("ordered", "from"), **attributes)
    return "Cast", (ordered,), {"to": TensorProto.INT64}


def _never_empty(g: GraphBuilder, inputs: tuple[Name, ...], attributes: Attributes) -> Last:
    """[k, M] and [k, N] with a row of zeros behind each, which adds nothing to the product."""
    below = g.ints(0, 0, 1, 0)
    padded = (g.op("Pad", rows, below) for rows in inputs[:2])
    return "Gemm", (*padded, *inputs[2:]), attributes


FORMS: Mapping[str, Form] = {
    "selection by places": Form(
        "Compress", (TRACT, TVM), "tract 0.23.9: `Compress can not be typed`; TVM 0.27 has none",
        _compress,
    ),
    "first of the largest": Form(
        "Hardmax", (MNN, TRACT),
        "MNN 3.6.1 has no Hardmax; tract 0.23.9 none of a length that depends on data", _hardmax,
    ),
    "places by float32": Form(
        "TopK", (IREE,), "IREE 3.13 compiles no TopK of int64 for more than one image", _ascending,
        only="ascending",
    ),
    "products of a row at least": Form(
        "Gemm", (MNN,),
        "MNN 3.6.1 computes other numbers, without a word, once such a product was one of no rows",
        _never_empty, having="transA",
    ),
}  # fmt: skip


def rewrite(model: onnx.ModelProto, target: str) -> None:
    """Give a model the forms that a runtime needs; all names stay."""
    (opset,) = (one.version for one in model.opset_import if not one.domain)
    taken = {f.operator: f for f in FORMS.values() if target in (ANY, *f.targets)}
    stored = {tensor.name for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        form = taken.get(node.op_type)
        if form is None or not _needed(form, node):
            nodes.append(node)
            continue
        written = _written(form, node, opset)
        nodes += written.node
        added = [tensor for tensor in written.initializer if tensor.name not in stored]
        model.graph.initializer.extend(added)
        stored.update(tensor.name for tensor in added)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _needed(form: Form, node: onnx.NodeProto) -> bool:
    """Whether it is one of those that need the form."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    begins = node.output[0].rpartition("/")[2].startswith(form.only)
    return begins and bool(not form.having or attributes.get(form.having))


def _written(form: Form, node: onnx.NodeProto, opset: int) -> onnx.GraphProto:
    """An operator in another form."""
    g = GraphBuilder(opset, {})
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    with g.scope(f"form/{node.output[0]}"):
        kind, inputs, others = form.write(g, tuple(node.input), attributes)
    g.keep(g.op(kind, *inputs, name=node.output[0], **others))
    return g.build("form", {}).graph

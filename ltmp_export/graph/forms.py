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
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.targets import ANY, IREE, MNN, TRACT, TVM

Attributes: TypeAlias = Mapping[str, Any]
# The operator, its inputs and attributes, which gives what the other gave.
Last: TypeAlias = tuple[str, tuple[Name, ...], Attributes]
_ENDLESS = 2**31  # an end of a slice from here on is that of the axis


@dataclass(frozen=True)
class Operator:
    """One that stands in a file.

    Attributes:
        inputs: Their names.
        output: Name of the first.
        attributes: By name.
        numbers: The whole numbers that the file stores for inputs, by name.
        halves: Inputs that it stores in float16.
        ragged: Whether shapes in the file depend on data.
    """

    inputs: tuple[Name, ...]
    output: Name
    attributes: Attributes
    numbers: Mapping[Name, tuple[int, ...]]
    halves: frozenset[Name]
    ragged: bool


def _always(_: Operator) -> bool:
    return True


@dataclass(frozen=True)
class Form:
    """Another form of an operator.

    Attributes:
        operator: Which.
        targets: The runtimes that need it.
        reason: Why, with the version.
        write: Writes all of it but the last operator.
        needed: Tells those that need it.
    """

    operator: str
    targets: tuple[str, ...]
    reason: str
    write: Callable[[GraphBuilder, Operator], Last]
    needed: Callable[[Operator], bool] = _always


def _compress(g: GraphBuilder, one: Operator) -> Last:
    """Of values all axes, or one, at the places of what is true of [n]."""
    values, mask = one.inputs
    axis = one.attributes.get("axis")
    if axis is None:
        values = g.reshape(values, -1)
    return "Gather", (values, g.reshape(g.op("NonZero", mask), -1)), {"axis": axis or 0}


def _hardmax(g: GraphBuilder, one: Operator) -> Last:
    """[S, D] → 1 at the first of each row's largest, else 0."""
    (values,) = one.inputs
    count = g.op("Gather", g.op("Shape", values), g.index(1), axis=0)
    places = g.op("Range", g.index(0), count, g.index(1))
    first = g.op("ArgMax", values, axis=1, keepdims=1)
    return "Cast", (g.op("Equal", places, first),), {"to": TensorProto.FLOAT}


def _ascending(g: GraphBuilder, one: Operator) -> Last:
    """Places, which are whole, in order by their float32 numbers, exact below 2^24."""
    values, number = g.op("Cast", one.inputs[0], to=TensorProto.FLOAT), one.inputs[1]
    ordered, _ = g.ops("TopK", values, number, names=("ordered", "from"), **one.attributes)
    return "Cast", (ordered,), {"to": TensorProto.INT64}


def _is_ascending(one: Operator) -> bool:
    return one.output.rpartition("/")[2].startswith("ascending")


def _never_empty(g: GraphBuilder, one: Operator) -> Last:
    """[k, M] and [k, N] with a row of zeros behind each, which adds nothing to the product."""
    below = g.ints(0, 0, 1, 0)
    padded = (g.op("Pad", rows, below) for rows in one.inputs[:2])
    return "Gemm", (*padded, *one.inputs[2:]), one.attributes


def _is_transposed(one: Operator) -> bool:
    return bool(one.attributes.get("transA"))


def _every_other(g: GraphBuilder, one: Operator) -> Last:
    """Of one axis every so many rows from one on, to its end, by their places."""
    (first,), _, (axis,), (step,) = (one.numbers[name] for name in one.inputs[1:])
    count = g.op("Gather", g.op("Shape", one.inputs[0]), g.index(axis), axis=0)
    places = g.op("Range", g.index(first), count, g.index(step))
    return "Gather", (one.inputs[0], places), {"axis": axis}


def _steps(one: Operator) -> bool:
    """Whether a slice of one axis leaves out rows, and none at its end, of a ragged file."""
    told = [one.numbers.get(name, ()) for name in one.inputs[1:]]
    if not one.ragged or [len(each) for each in told] != [1, 1, 1, 1]:
        return False
    (first,), (end,), _, (step,) = told
    return step > 1 and first >= 0 and end >= _ENDLESS


def _in_two(g: GraphBuilder, one: Operator) -> Last:
    """[n, C] by a stored [D, C] or [C, D], and a bias behind it."""
    rows, weight, bias = one.inputs
    if one.attributes.get("transB"):
        weight = g.op("Transpose", weight, perm=[1, 0])
    return "Add", (g.op("MatMul", rows, weight), bias), {}


def _adds_halves(one: Operator) -> bool:
    """Whether a bias in float16 is added to a plain product."""
    plain = not one.attributes.keys() - {"transB"}
    return plain and len(one.inputs) == 3 and one.inputs[2] in one.halves


FORMS: Mapping[str, Form] = {
    "selection by places": Form(
        "Compress", (IREE, TRACT, TVM),
        "tract 0.23.9: `Compress can not be typed`; IREE 3.13 compiles none; TVM 0.27 has none",
        _compress,
    ),
    "first of the largest": Form(
        "Hardmax", (MNN, TRACT),
        "MNN 3.6.1 has no Hardmax; tract 0.23.9 none of a length that depends on data", _hardmax,
    ),
    "places by float32": Form(
        "TopK", (IREE,), "IREE 3.13 compiles no TopK of int64 for more than one image", _ascending,
        _is_ascending,
    ),
    "every other row by its place": Form(
        "Slice", (IREE,),
        "IREE 3.13 does not compile what gathers, by places that depend on data, from a slice that "
        "leaves out rows: `vector.gather` of such memory stays behind",
        _every_other, _steps,
    ),
    "products of a row at least": Form(
        "Gemm", (MNN,),
        "MNN 3.6.1 computes other numbers, without a word, once such a product was one of no rows",
        _never_empty, _is_transposed,
    ),
    "product and bias of float16 apart": Form(
        "Gemm", (TRACT,), "tract 0.23.9 takes its own result for float32, and refuses it", _in_two,
        _adds_halves,
    ),
}  # fmt: skip


def rewrite(model: onnx.ModelProto, target: str) -> None:
    """Give a model the forms that a runtime needs; all names stay."""
    (opset,) = (one.version for one in model.opset_import if not one.domain)
    stored = {tensor.name for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node, chosen in _chosen(model, target):
        if chosen is None:
            nodes.append(node)
            continue
        written = _written(FORMS[chosen[0]], chosen[1], opset)
        nodes += written.node
        added = [tensor for tensor in written.initializer if tensor.name not in stored]
        model.graph.initializer.extend(added)
        stored.update(tensor.name for tensor in added)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model.graph)


def lacking(model: onnx.ModelProto, target: str) -> tuple[str, ...]:
    """Names of the forms that a runtime needs of a model that has none yet, as in `FORMS`."""
    found = {chosen[0] for _, chosen in _chosen(model, target) if chosen is not None}
    return tuple(name for name in FORMS if name in found)


def _chosen(
    model: onnx.ModelProto, target: str
) -> list[tuple[onnx.NodeProto, tuple[str, Operator] | None]]:
    """Each operator of a model, with the form that a runtime needs of it, if it does."""
    taken = {name: form for name, form in FORMS.items() if target in (ANY, *form.targets)}
    kinds = {form.operator for form in taken.values()}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    ragged = any(node.op_type in ("Compress", "NonZero") for node in model.graph.node)
    chosen: list[tuple[onnx.NodeProto, tuple[str, Operator] | None]] = []
    for node in model.graph.node:
        if node.op_type not in kinds:
            chosen.append((node, None))
            continue
        one = _read(node, stored, ragged)
        fits = (n for n, f in taken.items() if f.operator == node.op_type and f.needed(one))
        name = next(fits, None)
        chosen.append((node, None if name is None else (name, one)))
    return chosen


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Of what is stored, that which was for an operator in its other form."""
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _read(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], ragged: bool) -> Operator:
    """An operator of a file."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    tensors = [stored[name] for name in node.input if name in stored]
    numbers = {
        one.name: tuple(numpy_helper.to_array(one).ravel().tolist())
        for one in tensors
        if one.data_type == TensorProto.INT64
    }
    halves = frozenset(one.name for one in tensors if one.data_type == TensorProto.FLOAT16)
    return Operator(tuple(node.input), node.output[0], attributes, numbers, halves, ragged)


def _written(form: Form, one: Operator, opset: int) -> onnx.GraphProto:
    """An operator in another form."""
    g = GraphBuilder(opset, {})
    with g.scope(f"form/{one.output}"):
        kind, inputs, others = form.write(g, one)
    g.keep(g.op(kind, *inputs, name=one.output, **others))
    return g.build("form", {}).graph

"""Writing ONNX graphs node by node, each operator in the form its opset has.

The graph is written at the asked opset from the start; nothing is translated up or down, so the
file declares what was asked for by construction. Where operators changed between opsets 16 and the
newest, the method here that writes them knows both forms, and is the only place that does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.graph.naming import named

OLDEST_OPSET = 16

Name: TypeAlias = str


def _model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(imports)
    return helper.make_model(graph, opset_imports=imports, ir_version=version, producer_name="ltmp")


class GraphBuilder:
    """Collects nodes and constants of one graph; every method returns the name of its result.

    Args:
        opset: Version of the standard domain the graph is written in.
        weights: Float32 arrays by checkpoint name; each is stored once, under that name, when used.
    """

    def __init__(self, opset: int, weights: Mapping[str, NDArray[Any]]) -> None:
        self.opset = opset
        self.weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[Name, NDArray[Any] | None] = {}  # None: in `weights`
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._kept: set[Name] = set()
        self._scope = ""
        self._half = False
        self._halves: set[Name] = set()  # what was written inside of `half`
        self._place = ""
        self.places: dict[Name, str] = {}  # of what was written inside of `half`, its place
        self._used: dict[str, int] = {}
        self._written: dict[tuple[str, tuple[Name, ...], str], Name] = {}

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of everything written inside with `name/`."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def op(self, kind: str, *inputs: Name, name: str | None = None, **attributes: Any) -> Name:
        """Write one node with one output, named `name` in the current scope if given.

        A node without a name that was written before, anywhere in the graph, is not written again.
        """
        if name is not None:
            return self.ops(kind, *inputs, names=(name,), **attributes)[0]
        key = (kind, inputs, repr(sorted(attributes.items())))
        if key not in self._written:
            self._written[key] = self.ops(kind, *inputs, names=(kind,), **attributes)[0]
        return self._written[key]

    def ops(
        self, kind: str, *inputs: Name, names: Sequence[str], **attributes: Any
    ) -> tuple[Name, ...]:
        """Write one node with an output for each of `names`."""
        outputs = [self._unique(name) for name in names]
        node = helper.make_node(
            kind, list(inputs), outputs, name=f"{outputs[0]}:node", **attributes
        )
        self._nodes.append(node)
        if self._half:
            self._halves.update(outputs)
            self.places.update(dict.fromkeys(outputs, self._place))
        return tuple(outputs)

    def _unique(self, name: str) -> Name:
        full = f"{self._scope}{name}"
        count = self._used[full] = self._used.get(full, 0) + 1
        return full if count == 1 else f"{full}_{count}"

    def weight(self, name: str) -> Name:
        """A weight under its checkpoint name."""
        if self._half:
            self.places[name] = self._place
            with np.errstate(over="ignore"):  # see `calibration.halves`
                return self.stored(name, np.asarray(self.weights[name]).astype(np.float16))
        self._initializers[name] = None
        return name

    def byte(self, value: int) -> Name:
        """A constant uint8 scalar."""
        return self._constant("u8", np.array(value, np.uint8))

    def signed(self, value: int) -> Name:
        """A constant int8 scalar."""
        return self._constant("i8", np.array(value, np.int8))

    @contextlib.contextmanager
    def half(self, wanted: bool, place: str) -> Iterator[None]:
        """Make the weights and numbers written inside float16, if that is wanted.

        `place` says what of the model they belong to.
        """
        outer = self._half, self._place
        self._half, self._place = wanted, place
        try:
            yield
        finally:
            self._half, self._place = outer

    def cast(self, x: Name) -> Name:
        """`x` as the numbers written here are: float16 inside of `half`, else float32."""
        if (x in self._halves) == self._half:
            return x
        return self.op("Cast", x, to=TensorProto.FLOAT16 if self._half else TensorProto.FLOAT)

    def stored(self, name: Name, array: NDArray[Any]) -> Name:
        """A constant array of any type under a name of its own, the same wherever it is asked."""
        self._initializers[name] = array
        return name

    def ints(self, *values: int) -> Name:
        """A constant int64 vector; equal constants are stored once."""
        return self._constant("i64", np.array(values, np.int64))

    def counting(self, length: int) -> Name:
        """A constant int64 vector 0, 1, 2, …"""
        name = f"const/arange[{length}]"
        self._initializers[name] = np.arange(length)
        return name

    def logarithms(self, most: int) -> Name:
        """A constant float32 vector of log 1, log 2, … log `most` at these places.

        What stands at 0 is never read. It is 0: tools that round a table to integers take its range
        from all of it, and -inf would make all of it NaN.
        """
        table = np.log(np.arange(most + 1).clip(min=1)).astype(np.float32)
        return self.stored(f"const/log[{most}]", table)

    def arange(self, most: int, stop: Name) -> Name:
        """int64 [N] 0, 1, 2, … below `stop` [1], which is at most `most`."""
        return self.op("Slice", self.counting(most), self.ints(0), stop)

    def column(self, values: Sequence[int]) -> Name:
        """A constant int64 column [n, 1]."""
        return self._constant("i64c", np.array(values, np.int64)[:, None])

    def index(self, value: int) -> Name:
        """A constant int64 scalar."""
        return self._constant("i64s", np.array(value, np.int64))

    def number(self, value: float, name: str | None = None) -> Name:
        """A constant scalar; with a name of its own in the current scope if given."""
        array = np.array(value, np.float16 if self._half else np.float32)
        if name is None:
            return self._constant("f16" if self._half else "f32", array)
        full = self._unique(name)
        self._initializers[full] = array
        return full

    def row(self, value: float, length: int) -> Name:
        """A constant float32 row [1, n] of one value."""
        return self._constant("f32r", np.full((1, length), value, np.float32))

    def _constant(self, kind: str, array: NDArray[Any]) -> Name:
        name = f"const/{kind}[{','.join(str(v) for v in array.reshape(-1))}]"
        self._initializers[name] = array
        return name

    def keep(self, name: Name) -> None:
        """Leave what makes this tensor in the graph, even if no output needs it."""
        self._kept.add(name)

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> Name:
        """Declare a graph input; strings in `shape` are symbolic axes."""
        if kind == TensorProto.FLOAT16:
            self._halves.add(name)
            self.places[name] = name
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, source: Name, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Declare `source` a graph output called `name`."""
        if kind == TensorProto.FLOAT16:
            self.places[name] = name
        self._nodes.append(helper.make_node("Identity", [source], [name], name=f"{name}:node"))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def reduce(
        self,
        kind: str,
        x: Name,
        axes: Sequence[int],
        keepdims: bool = False,
        name: str | None = None,
    ) -> Name:
        """A reducing operator, like ReduceSum; their axes became an input over time."""
        since = 13 if kind == "ReduceSum" else 18
        if self.opset >= since:
            return self.op(kind, x, self.ints(*axes), name=name, keepdims=int(keepdims))
        return self.op(kind, x, name=name, axes=list(axes), keepdims=int(keepdims))

    def reshape(self, x: Name, *shape: int, name: str | None = None) -> Name:
        """Reshape; 0 keeps a dimension, one -1 is inferred."""
        return self.op("Reshape", x, self.ints(*shape), name=name)

    def slice(self, x: Name, axis: int, start: int, stop: int | None = None, step: int = 1) -> Name:
        """`x[..., start:stop:step, ...]` on one axis."""
        end = np.iinfo(np.int64).max if stop is None else stop
        ints = (self.ints(start), self.ints(int(end)), self.ints(axis), self.ints(step))
        return self.op("Slice", x, *ints)

    def layer_norm(self, x: Name, weight: Name, bias: Name, eps: float) -> Name:
        """LayerNorm over the last axis; one operator from opset 17, spelled out before."""
        if self.opset >= 17:
            return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)
        centred = self.op("Sub", x, self.reduce("ReduceMean", x, [-1], keepdims=True))
        squares = self.op("Pow", centred, self.number(2.0))
        variance = self.reduce("ReduceMean", squares, [-1], keepdims=True)
        deviation = self.op("Sqrt", self.op("Add", variance, self.number(eps)))
        scaled = self.op("Mul", self.op("Div", centred, deviation), weight)
        return self.op("Add", scaled, bias)

    def rms_norm(self, x: Name, weight: Name, eps: float, name: str | None = None) -> Name:
        """RMSNorm over the last axis, in the pattern that onnxruntime fuses."""
        squares = self.op("Pow", x, self.number(2.0))
        mean = self.reduce("ReduceMean", squares, [-1], keepdims=True)
        root = self.op("Sqrt", self.op("Add", mean, self.number(eps)))
        return self.op("Mul", self.op("Div", x, root), weight, name=name)

    def activation(self, kind: str, x: Name) -> Name:
        """One of the activations that geometries know."""
        if kind == "gelu" or kind == "gelu_tanh":
            return self._gelu(x, "none" if kind == "gelu" else "tanh")
        if kind == "relu":
            return self.op("Relu", x)
        if kind == "hardswish":
            return self.op("Mul", x, self.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))
        slope = {"silu": 1.0, "quick_gelu": 1.702}[kind]
        inner = x if slope == 1.0 else self.op("Mul", x, self.number(slope))
        return self.op("Mul", x, self.op("Sigmoid", inner))

    def _gelu(self, x: Name, approximate: str) -> Name:
        """GELU; one operator from opset 20, before that the pattern onnxruntime fuses."""
        if self.opset >= 20:
            return self.op("Gelu", x, approximate=approximate)
        if approximate == "none":
            inner = self.op("Erf", self.op("Div", x, self.number(math.sqrt(2.0))))
            gate = self.op("Add", inner, self.number(1.0))
            # The same bits as with the half last, which MNN 3.6 approximates (off by 5e-4).
            return self.op("Mul", self.op("Mul", x, self.number(0.5)), gate)
        cubic = self.op("Mul", self.op("Pow", x, self.number(3.0)), self.number(0.044715))
        slope = self.number(math.sqrt(2.0 / math.pi))
        inner = self.op("Tanh", self.op("Mul", self.op("Add", x, cubic), slope))
        gate = self.op("Add", inner, self.number(1.0))
        return self.op("Mul", self.op("Mul", x, gate), self.number(0.5))

    def build(self, name: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model, without what neither an output nor `keep` needs."""
        given = {value.name for value in self._outputs}
        nodes, renamed = named(self._needed_nodes(), {*self._written.values()}, given)
        self.places |= {renamed[n]: place for n, place in self.places.items() if n in renamed}
        needed = {stored for node in nodes for stored in node.input}
        graph = helper.make_graph(nodes, name, self._inputs, self._outputs)
        model = _model(graph, self.opset)
        helper.set_model_props(model, dict(metadata))
        for stored, array in self._initializers.items():  # only now: each weight is copied once
            if stored not in needed:
                continue
            if array is None:
                array = np.ascontiguousarray(self.weights[stored], dtype=np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, stored))
        return model

    def _needed_nodes(self) -> list[onnx.NodeProto]:
        needed = {value.name for value in self._outputs} | self._kept
        kept = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        return kept[::-1]

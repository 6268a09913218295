"""Models that take pictures: a graph that prepares them in front, see `model_file.front`."""

from __future__ import annotations

from typing import NamedTuple

import onnx
from onnx import TensorProto

from ltmp_export.graph import interface
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.model_file import front as fronts
from ltmp_export.model_file.front import IMAGES, PICTURES, SCOPE
from ltmp_export.model_file.validate import validate

KEY = "ltmp.pictures"  # of the metadata: what the input holds
BYTES = "uint8"


class Parts(NamedTuple):
    """A model that takes pictures, taken apart.

    Attributes:
        front: From pictures to model inputs.
        rest: From model inputs to outputs, as it is without the front.
    """

    front: onnx.ModelProto
    rest: onnx.ModelProto


def put_before(
    model: onnx.ModelProto, input_size: tuple[int, int, int], rule: Preprocessing, opset: int
) -> None:
    """Make a model take pictures, and say so in its metadata.

    Args:
        model: It, changed in place.
        input_size: Channels, height and width of its images.
        rule: How pictures are prepared.
        opset: That it declares.

    Raises:
        ExportError: The graph is not what it must be.
    """
    graph, images = model.graph, model.graph.input[0]
    apart = fronts.model(
        input_size, rule, opset,
        batch_size=interface.fixed_batch(model),
        half=images.type.tensor_type.elem_type == TensorProto.FLOAT16,
    )  # fmt: skip
    validate(apart, opset)
    front = apart.graph
    graph.value_info.append(images)
    del graph.input[:]
    graph.input.extend(front.input)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*front.node, *nodes])
    known = {tensor.name for tensor in graph.initializer}  # constants are named by what they are
    graph.initializer.extend(tensor for tensor in front.initializer if tensor.name not in known)
    model.metadata_props.add(key=KEY, value=BYTES)


def front_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """What prepares the pictures that a model takes; the model is not touched.

    Raises:
        ValueError: It does not take pictures.
    """
    graph = model.graph
    images = [value for value in graph.value_info if value.name == IMAGES]
    nodes = [node for node in graph.node if _prepares(node)]
    if len(images) != 1 or [value.name for value in graph.input] != [PICTURES] or not nodes:
        raise ValueError(f"{KEY} of a graph that does not take {PICTURES}")
    own = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in graph.initializer if tensor.name in own]
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "pictures", list(graph.input), images, stored),
        opset_imports=model.opset_import, ir_version=model.ir_version,
    )  # fmt: skip


def take_apart(model: onnx.ModelProto) -> Parts:
    """The inverse of `put_before`; the rest is the model that was given, changed in place.

    Raises:
        ValueError: It does not take pictures.
    """
    apart, graph = front_of(model), model.graph
    own = {tensor.name for tensor in apart.graph.initializer}
    rest = [node for node in graph.node if not _prepares(node)]
    needed = {name for node in rest for name in node.input} | {o.name for o in graph.output}
    keep = [t for t in graph.initializer if t.name in needed or t.name not in own]
    others = [value for value in graph.value_info if value.name != IMAGES]
    for field, values in (
        (graph.node, rest), (graph.initializer, keep), (graph.value_info, others),
        (graph.input, list(apart.graph.output)),
    ):  # fmt: skip
        del field[:]
        field.extend(values)
    return Parts(apart, model)


def _prepares(node: onnx.NodeProto) -> bool:
    """Whether a node is one of the front's."""
    return node.name.startswith(f"{SCOPE}/") or IMAGES in node.output

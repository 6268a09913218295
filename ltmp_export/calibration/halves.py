"""Which numbers of a model float16 has no room for, and what therefore stays float32.

float16 ends at 65504, and everything beyond it is infinite. onnxruntime computes float16 products
in float32 on a CPU and drops the casts between them, so that there a file looks right that is NaN
where float16 is float16. What could overflow is not looked up in a list here: the graph itself is
copied with float32 in the place of every float16, and in this twin the largest magnitude of each
tensor that was float16 is measured, image by image. What an operator adds up inside is no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError, InputError
from ltmp_export.graph import detached, interface
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import half_places, to_onnx
from ltmp_export.plan.outputs import KNOWN, default
from ltmp_export.precision.formats import HALF_LARGEST, Precision
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes.session import Session

ROOM = 2.0  # other images may reach so much further than those that are measured on

FLOAT, FLOAT16 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


class Reach(NamedTuple):
    """The largest magnitude of a tensor, and the image that leads to it."""

    value: float
    image: str


def fitted(
    checkpoint: Checkpoint,
    images: Sequence[Images],
    asked: Precision,
    *,
    opset: int,
    batch_size: int | None = None,
    outputs: Sequence[str] | None = None,
    token_counts: bool = False,
    progress: Progress = silent,
) -> tuple[onnx.ModelProto, Precision]:
    """Write a checkpoint in float16, and in float32 what reaches beyond half of float16's range.

    Args:
        checkpoint: What to write.
        images: Sets of images to measure on; the first of them is named in the file.
        asked: Float16 with nothing kept.
        opset: As for `model_file.model.to_onnx`; so are the next three.
        batch_size: 1 or None.
        outputs: What the file gives.
        token_counts: Whether to add that output.
        progress: Called with a few words as each image begins.

    Returns:
        The model, and `asked` with what is kept.

    Raises:
        InputError: Images or outputs of type float16 have no room for theirs, or the images lead to
            numbers that float32 has no room for.
        ExportError: The graph is not what it must be.
    """
    precision = replace(asked, calibration=images[0].described)
    given = default(checkpoint.geometry) if outputs is None else outputs
    while True:
        model = to_onnx(
            checkpoint, opset=opset, batch_size=batch_size, outputs=given,
            token_counts=token_counts, precision=precision,
        )  # fmt: skip
        large = _large_weights(model, checkpoint) or {
            name: reach
            for one in images
            for name, reach in reaches(model, one, progress).items()
            if not reach.value * ROOM <= HALF_LARGEST
        }
        if not large:
            return model, precision
        places = half_places(
            checkpoint, opset=opset, batch_size=batch_size, outputs=given, precision=precision
        )
        kept = dict(precision.kept)
        for name, reach in large.items():
            place = _place(name, places, reach, precision.kept)
            kept[place] = max(kept.get(place, 0.0), reach.value)
        precision = replace(precision, kept=kept)


def _place(name: str, places: Mapping[str, str], reach: Reach, kept: Mapping[str, float]) -> str:
    """What is to be kept in float32 because of a tensor, beside what is.

    Raises:
        InputError: It is what the file is given or gives, or nothing that float32 could hold.
        ExportError: It belongs to nothing, or to what is float32 already.
    """
    if not np.isfinite(reach.value):
        raise InputError(
            f"{reach.image} leads to infinite numbers in float32 ({name}); give other images "
            "(--calibration-images of an export)"
        )
    place = places.get(name)
    if place in ("images", *KNOWN):
        raise InputError(
            f"--io fp16: the {place} reach {reach.value:.1e} ({reach.image}), and float16 ends at "
            f"{HALF_LARGEST:.0f}, of which a factor of {ROOM:g} is left free; export with --io fp32"
        )
    if place is None or place in kept:
        raise ExportError(
            f"the tensor {name} reaches {reach.value:.1e} and is float16 all the same"
        )
    return place


def _large_weights(model: onnx.ModelProto, checkpoint: Checkpoint) -> dict[str, Reach]:
    """The weights that are infinite in float16, with what they are in the checkpoint."""
    weights = checkpoint.model.state_dict()
    return {name: Reach(float(weights[name].abs().max()), name) for name in infinite_weights(model)}


def infinite_weights(model: onnx.ModelProto) -> list[str]:
    """The float16 weights of a model that are not finite."""
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == FLOAT16 and not np.isfinite(numpy_helper.to_array(tensor)).all()
    ]


def overflow(model: onnx.ModelProto, images: Images, progress: Progress = silent) -> str:
    """Where a file leaves float16's range on images, first of all, and what to do; or nothing.

    Raises:
        ExportError: onnxruntime does not run the file's twin.
    """
    again = (
        "export it again with --calibration-images like these, and what float16 has no room for "
        "stays float32"
    )
    if infinite := infinite_weights(model):
        return f"{_block(infinite[0])}the weight {infinite[0]} is infinite in float16; {again}"
    for name, reach in reaches(model, images, progress).items():
        if not reach.value <= HALF_LARGEST:
            return (
                f"{_block(name)}the float16 tensor {name}{_layer(model, name)} reaches "
                f"{reach.value:.1e} on {reach.image}, and float16 ends at {HALF_LARGEST:.0f}: a "
                f"processor that computes in float16 gives infinities or NaN; {again}"
            )
    return ""


def _block(name: str) -> str:
    """`block 3: ` for what stands in one."""
    found = re.match(r"block_(\d+)/|blocks\.(\d+)\.", name)
    return f"block {int(found[1] or found[2])}: " if found else ""


def _layer(model: onnx.ModelProto, name: str) -> str:
    """The linear layer that gives a tensor, where one does."""
    stored = {tensor.name for tensor in model.graph.initializer if tensor.name.endswith(".weight")}
    for node in model.graph.node:
        if name in node.output and stored.intersection(node.input):
            return f" ({stored.intersection(node.input).pop().removesuffix('.weight')})"
    return ""


def reaches(
    model: onnx.ModelProto, images: Images, progress: Progress = silent
) -> dict[str, Reach]:
    """The largest magnitude of every float16 tensor of a graph, in the order of its nodes.

    Args:
        model: The model; one without float16 is not run.
        images: What to run, one image at a time.
        progress: Called with a few words as each image begins.

    Raises:
        ExportError: onnxruntime does not run it.
    """
    names = float16_tensors(model)
    if not names or not len(images):
        return {}
    session = Session(_twin(model, names), quiet=True)
    copies = interface.fixed_batch(model) or 1
    found = dict.fromkeys(names, Reach(0.0, images.names[0]))
    for number, (image, pixels) in enumerate(zip(images.names, images.pixels, strict=True)):
        progress(f"measuring ranges on image {number + 1} of {len(images)}")
        values = session.run(np.repeat(pixels[None], copies, axis=0))
        for name, value in zip(names, map(float, values), strict=True):
            if not value <= found[name].value:
                found[name] = Reach(value, image)
    return found


def float16_tensors(model: onnx.ModelProto) -> list[str]:
    """All tensors of a graph that are float16 by their type, but weights; the inputs first.

    Raises:
        ExportError: The types do not follow from the graph.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    given = {value.name for value in model.graph.input}
    bare.graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        if tensor.name not in given:
            kind, shape = tensor.data_type, list(tensor.dims)
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))
    try:
        inferred = onnx.shape_inference.infer_shapes(bare).graph
    except onnx.shape_inference.InferenceError as err:
        raise ExportError(f"the types of the graph's tensors do not follow: {err}") from err
    halves = {
        value.name
        for value in (*model.graph.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == FLOAT16
    }
    outputs = (output for node in model.graph.node for output in node.output)
    stored = {tensor.name for tensor in model.graph.initializer}
    ordered = (*(value.name for value in model.graph.input), *outputs)
    return [name for name in ordered if name in halves - stored]


def _twin(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy that computes in float32 throughout, and gives the reach of each of these tensors."""
    graph, weights = detached.detach(model)
    twin = onnx.ModelProto()
    twin.CopyFrom(graph)
    for tensor in twin.graph.initializer:
        if tensor.data_type == FLOAT16 or tensor.name in weights:
            array = weights.pop(tensor.name, None)
            array = numpy_helper.to_array(tensor) if array is None else array
            kind = np.float32 if tensor.data_type == FLOAT16 else array.dtype
            tensor.CopyFrom(numpy_helper.from_array(array.astype(kind), tensor.name))
    for value in twin.graph.input:
        if value.type.tensor_type.elem_type == FLOAT16:
            value.type.tensor_type.elem_type = FLOAT
    for attribute in (a for node in twin.graph.node for a in node.attribute):
        if attribute.name in ("to", "dtype") and attribute.i == FLOAT16:
            attribute.i = FLOAT
        if attribute.HasField("t") and attribute.t.data_type == FLOAT16:
            array = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    del twin.graph.output[:], twin.graph.value_info[:]
    for number, name in enumerate(names):
        size, reach = f"halves/size_{number}", f"halves/reach_{number}"
        twin.graph.node.append(helper.make_node("Abs", [name], [size]))
        twin.graph.node.append(helper.make_node("ReduceMax", [size], [reach], keepdims=0))
        twin.graph.output.append(helper.make_tensor_value_info(reach, FLOAT, None))
    return twin

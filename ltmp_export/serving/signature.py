"""The inputs and outputs of a model file, as servers ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto, ValueInfoProto

from ltmp_export.errors import InputError
from ltmp_export.graph import interface
from ltmp_export.model_file.model import ExportedModel

FREE = -1  # an axis of any length
NUMBERS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: As the file has it.
        numbers: One of `NUMBERS`.
        axes: Their lengths, the batch first; `FREE` where any is taken.
    """

    name: str
    numbers: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        images: The one input: model inputs, or pictures.
        outputs: In the order of the file.
        batch: The only batch it takes, or None for any.
    """

    images: Tensor
    outputs: tuple[Tensor, ...]
    batch: int | None


def signature(exported: ExportedModel) -> Signature:
    """What an exported model takes and gives.

    Raises:
        InputError: An output has not the images' batch as its first axis.
    """
    given, graph = (exported.front or exported.proto).graph.input[0], exported.proto.graph
    images, *others = (_tensor(exported, value) for value in (given, *graph.output))
    batch = interface.fixed_batch(exported.proto)
    for output in others:
        if not output.axes or output.axes[0] != images.axes[0]:
            raise InputError(
                f"{exported.path}: output {output.name} {list(output.axes)} has not the batch of "
                f"the images first; export it again with this version"
            )
    return Signature(images, tuple(others), batch)


def _tensor(exported: ExportedModel, value: ValueInfoProto) -> Tensor:
    """One input or output.

    Raises:
        InputError: It holds numbers of another kind.
    """
    kind = value.type.tensor_type
    if kind.elem_type not in NUMBERS:
        raise InputError(
            f"{exported.path}: {value.name} holds {TensorProto.DataType.Name(kind.elem_type)}; "
            f"expected {', '.join(NUMBERS.values())}"
        )
    axes = (axis.dim_value if axis.HasField("dim_value") else FREE for axis in kind.shape.dim)
    return Tensor(value.name, NUMBERS[kind.elem_type], tuple(axes))

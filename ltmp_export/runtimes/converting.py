"""For runtimes that convert a file before they run it: in a process of its own, without its noise.

A converter that ends its process, or writes to it, is then a message and nothing else.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.files import undo
from ltmp_export.files.workplace import end_all
from ltmp_export.runtimes.session import Source, halved

if TYPE_CHECKING:
    import onnx

# Nothing in the current folder stands in for a module; the modules' folders are the parent's.
_BOOT = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); exec(sys.argv.pop(1))"


@dataclass(frozen=True)
class Interface:
    """What a graph takes and gives.

    Attributes:
        images: The input's name.
        sides: Its axes; None for a free one.
        half: Whether it is float16.
        names: Of the outputs.
        kinds: Their types.
    """

    images: str
    sides: tuple[int | None, ...]
    half: bool
    names: tuple[str, ...]
    kinds: tuple[np.dtype[Any], ...]

    def taken(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Images [B, channels, H, W] in the numbers of the input.

        Raises:
            RuntimeError: They have another shape.
        """
        pairs = zip(self.sides, images.shape, strict=False)
        if len(self.sides) != images.ndim or any(side not in (None, n) for side, n in pairs):
            told = ", ".join("any" if side is None else str(side) for side in self.sides)
            raise RuntimeError(f"the model takes images [{told}]")
        return np.ascontiguousarray(halved(images) if self.half else images)

    def given(self, outputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs, copied, in the types of the graph; runtimes may have narrower integers."""
        return [
            np.array(one, kind) for one, kind in zip(outputs, self.kinds, strict=False)
        ]  # the first alone where only that was asked for


def read(source: Source) -> onnx.ModelProto:
    """A model with its weights inside.

    Raises:
        RuntimeError: It is no model.
        ExportError: It is in memory and beyond 2 GB.
    """
    import onnx
    from google.protobuf.message import DecodeError

    from ltmp_export.runtimes import whole

    try:
        if isinstance(source, Path):
            return onnx.load(source)
        return onnx.load_from_string(whole.in_memory(source))
    except DecodeError as err:
        raise RuntimeError(f"it is no ONNX model: {err}") from err


def interface(model: onnx.ModelProto) -> Interface:
    """What a model takes and gives."""
    from onnx import TensorProto, helper

    stored = {tensor.name for tensor in model.graph.initializer}
    images = next(value for value in model.graph.input if value.name not in stored)
    axes = images.type.tensor_type.shape.dim
    outputs = model.graph.output
    kinds = (helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type) for one in outputs)
    return Interface(
        images.name,
        tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes),
        images.type.tensor_type.elem_type == TensorProto.FLOAT16,
        tuple(value.name for value in outputs),
        tuple(kinds),
    )


def fix_batch(model: onnx.ModelProto, size: int) -> None:
    """Write a batch size in the place of a free one, wherever a model says it."""
    graph = model.graph
    free = {value.type.tensor_type.shape.dim[0].dim_param for value in graph.input} - {""}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in free:
                axis.dim_value = size


def run(program: str, *given: str | Path) -> str:
    """What a program of Python writes that runs apart with the modules of this process.

    Raises:
        RuntimeError: It failed; with what it wrote, which is many lines.
    """
    path = "\n".join(str(Path(entry).resolve()) for entry in sys.path if entry)
    arguments = ("-I", "-c", _BOOT, path, program, *map(str, given))
    with contextlib.ExitStack() as stack:
        with undo.postponed():  # no child that nobody knows of
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # with the compilers that it starts
            )
            stack.enter_context(undo.undone(partial(end_all, child)))
        told, _ = child.communicate()
    if child.returncode:
        how = f"died of signal {-child.returncode}" if child.returncode < 0 else "failed"
        raise RuntimeError(f"{told}\nthe conversion {how}")
    return told

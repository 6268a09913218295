"""onnxruntime sessions: opened strictly, run with clear errors, tapped in memory."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ltmp_export import external
from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.graph import OLDEST_OPSET, GraphBuilder

_ORT_ERRORS = tuple(
    error
    for error in vars(ort_errors).values()
    if isinstance(error, type) and issubclass(error, Exception)
)
CPU = "CPUExecutionProvider"


def processor_count() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def newest_opset() -> int:
    """The newest opset of the standard domain that the installed onnxruntime loads.

    What it runs there is another question, see `opsets`.
    """
    for opset in range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1):
        g = GraphBuilder(opset, {})
        g.output(g.input("x", TensorProto.FLOAT, [1]), "y", TensorProto.FLOAT, [1])
        with contextlib.suppress(ExportError):
            Session(g.build("probe", {}), quiet=True)
            return opset
    return OLDEST_OPSET


def require_installed(providers: Sequence[str], available: Sequence[str]) -> None:
    """Check that the installed onnxruntime has these execution providers, by their full names.

    Raises:
        UnavailableError: One is missing.
    """
    missing = [name for name in providers if name not in available]
    if missing:
        raise UnavailableError(
            f"no execution provider {', '.join(missing)} in the installed onnxruntime; "
            f"it has {', '.join(available)}"
        )


class Session:
    """A model loaded in onnxruntime.

    Args:
        model: The model; it is not changed.
        weights: Weights by name that the model only refers to, see `external.detach`.
        providers: Execution providers, the first is the one asked for; the CPU by default.
        threads: Threads of an operator; all processors by default.
        quiet: Keep onnxruntime from logging what it raises as an error anyway.
        optimised: Whether onnxruntime rewrites the graph, which takes most of the time of loading.

    Raises:
        UnavailableError: A provider is not installed, or onnxruntime did not take it.
        ExportError: onnxruntime does not load the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        quiet: bool = False,
        optimised: bool = True,
    ) -> None:
        require_installed(providers, ort.get_available_providers())
        self.threads = threads or processor_count()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4 if quiet else 3
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if weights is None:
            model, weights = external.detach(model)
        serialised, values = external.serialised(model), _values(weights)
        if values:
            options.add_external_initializers(list(weights), values)
        try:
            self._session = ort.InferenceSession(serialised, options, providers=list(providers))
            self._weights = values  # onnxruntime does not copy them
        except _ORT_ERRORS as err:
            raise ExportError(f"onnxruntime does not load the model: {err}") from err
        taken = self._session.get_providers()
        if taken[0] != providers[0]:
            raise UnavailableError(
                f"onnxruntime runs on {taken[0]}, though {providers[0]} was asked for"
            )
        self.provider = ", ".join(taken)
        taken_in = self._session.get_inputs()[0]
        self.input: str = taken_in.name
        self._half = taken_in.type == "tensor(float16)"

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run on [B, channels, H, W] and return all outputs.

        The images are handed over in the type the model takes, float32 or float16, and outputs in
        float16 come back as float32.

        Raises:
            ExportError: onnxruntime fails on these images.
        """
        given = _halved(images) if self._half else images
        try:
            found: list[NDArray[Any]] = self._session.run(None, {self.input: given})
        except _ORT_ERRORS as err:
            raise ExportError(
                f"onnxruntime fails on images of shape {images.shape}: {err}"
            ) from err
        return [_widened(array) for array in found]


def _halved(images: NDArray[np.float32]) -> NDArray[np.float16]:
    """Images as float16; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return images.astype(np.float16)


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _values(weights: Mapping[str, NDArray[Any]]) -> list[ort.OrtValue]:
    """Arrays as onnxruntime takes them, not copied.

    Raises:
        ExportError: numpy does not have the type of one, so onnxruntime does not take it.
    """
    try:
        return [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    except RuntimeError as err:
        raise ExportError(f"onnxruntime does not take the model's weights: {err}") from err


class TappedSession:
    """A session that also gives named inner tensors of the graph.

    Args:
        model: An exported model; the file's graph is not changed.
        taps: Element type (`onnx.TensorProto`) by tensor name.
        providers: As for `Session`.
        threads: As for `Session`.
        quiet: As for `Session`.

    Raises:
        InputError: The graph lacks one of the tensors.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        taps: Mapping[str, int],
        *,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        quiet: bool = False,
    ) -> None:
        if missing := missing_tensors(model, taps):
            raise InputError(
                f"the model has no tensor {missing[0]}: its blocks do not take the steps expected, "
                "or the graph was renamed; export it again with this version"
            )
        copy, weights = external.detach(model)
        copy = tapped(copy, taps)
        self._names = [value.name for value in copy.graph.output]
        self._session = Session(
            copy, weights=weights, providers=providers, threads=threads, quiet=quiet
        )

    @property
    def provider(self) -> str:
        """The execution providers it was loaded with, the first of them the one asked for."""
        return self._session.provider

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """[B, channels, H, W] → the file's own outputs and the taps, by name."""
        return dict(zip(self._names, self._session.run(images), strict=True))


def missing_tensors(model: onnx.ModelProto, names: Iterable[str]) -> list[str]:
    """The names that no node of the graph gives."""
    produced = {output for node in model.graph.node for output in node.output}
    return [name for name in names if name not in produced]


def count_taps(depth: int) -> dict[str, int]:
    """The token count of each block, [B] int64, as `TappedSession` takes them."""
    return {f"block_{block:02d}/count": int(TensorProto.INT64) for block in range(depth)}


def require_images(model: onnx.ModelProto, name: str, input_size: Sequence[int]) -> None:
    """Check that any model takes [batch, *input_size] and gives [batch, classes].

    Raises:
        InputError: It has other inputs or outputs, or fixed other sizes.
    """
    found = [_sizes(value) for value in _inputs(model)]
    fits = len(found) == 1 and len(found[0]) == 1 + len(input_size)
    fits = fits and all(a in (None, b) for a, b in zip(found[0][1:], input_size, strict=True))
    if not fits or len(_sizes(model.graph.output[0])) != 2:
        raise InputError(
            f"{name} takes {found} and gives {_sizes(model.graph.output[0])}; expected one input "
            f"[batch, {', '.join(map(str, input_size))}], and [batch, classes]"
        )


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The only batch size a model takes, or None if it takes any."""
    sizes = _sizes(_inputs(model)[0])
    return sizes[0] if sizes else None


def require_batches(model: onnx.ModelProto, name: str, batch_sizes: Sequence[int]) -> None:
    """Check that a model takes batches of these sizes.

    Raises:
        InputError: It takes another size only.
    """
    fixed = fixed_batch(model)
    if fixed is not None and (others := [size for size in batch_sizes if size != fixed]):
        raise InputError(
            f"{name} takes batches of {fixed} only, asked for {', '.join(map(str, others))}; give "
            f"--batch-size {fixed}, or export it without --batch-size for batches of any size"
        )


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph that are not weights."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """The axes of an input or output; None for a free one."""
    axes = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in axes]


def tapped(model: onnx.ModelProto, tensors: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of the model that also outputs named inner tensors; the file is not touched.

    Args:
        model: The model.
        tensors: Element type (`onnx.TensorProto`) by tensor name; all must exist in the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {entry.name for entry in copy.graph.output}
    for name, kind in tensors.items():
        if name not in present:
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy

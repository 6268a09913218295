"""onnxruntime sessions: opened strictly, run with clear errors, tapped in memory."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.graph import detached
from ltmp_export.graph.builder import OLDEST_OPSET, GraphBuilder
from ltmp_export.graph.interface import missing_tensors, tapped

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

    What it runs there is another question, see `runtimes.opsets`.
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
        weights: Weights by name that the model only refers to, see `graph.detached.detach`.
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
            model, weights = detached.detach(model)
        serialised, values = detached.serialised(model), _values(weights)
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
        copy, weights = detached.detach(model)
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

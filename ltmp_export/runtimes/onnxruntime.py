"""ONNX models in onnxruntime: opened on the execution provider that was asked for, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ltmp_export.errors import ExportError, UnavailableError
from ltmp_export.runtimes.providers import CPU, require_installed
from ltmp_export.runtimes.session import Options, Source, halved

NAME = "onnxruntime"
ERRORS: tuple[type[Exception], ...] = tuple(
    error
    for error in vars(ort_errors).values()
    if isinstance(error, type) and issubclass(error, Exception)
)
SHARES = INNER = True
MODULES = ("onnxruntime",)
EXTRA = ""


class OnnxRuntime:
    """A model in onnxruntime, see `runtimes.session.Engine`.

    Its threads spin during a run unless told not to, as where one model is deployed. Between rounds
    of a bench they sleep: they stop spinning within milliseconds of a run.

    Args:
        source: A file, or a model in memory.
        options: How to open it.
        profile: Where a profile of its nodes begins; none by default.

    Attributes:
        session: The `onnxruntime.InferenceSession`.
    """

    def __init__(self, source: Source, options: Options, profile: Path | None = None) -> None:
        providers = list(options.providers) or [CPU]
        require_installed(providers, ort.get_available_providers())
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4 if options.quiet else 3
        if not options.optimised:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if options.sparing:
            settings.enable_cpu_mem_arena = False
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        if isinstance(source, Path):
            model: str | bytes = str(source)
        else:
            model, self._weights = source.graph, _values(source.weights)  # which are not copied
            if self._weights:
                settings.add_external_initializers(list(source.weights), self._weights)
        self.session = ort.InferenceSession(model, settings, providers=providers)
        taken = self.session.get_providers()
        if taken[0] != providers[0]:
            raise UnavailableError(
                f"onnxruntime runs on {taken[0]}, though {providers[0]} was asked for"
            )
        self.engine = f"{NAME} {ort.__version__}"
        self.provider = ", ".join(taken)
        given = self.session.get_inputs()[0]
        self._input = given.name
        self._half = given.type == "tensor(float16)"
        outputs = [output.name for output in self.session.get_outputs()]
        self._outputs = outputs[:1] if options.only_first else outputs

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """A feed of the first input, in the numbers it takes."""
        return {self._input: halved(images) if self._half else images}

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs for one feed."""
        found: list[NDArray[Any]] = self.session.run(self._outputs, inputs)
        return found


def open_engine(source: Source, options: Options) -> OnnxRuntime:
    """Load a model, see `runtimes.session.Runtime`."""
    return OnnxRuntime(source, options)


def _values(weights: Mapping[str, NDArray[Any]]) -> list[ort.OrtValue]:
    """Arrays as onnxruntime takes them, not copied.

    Raises:
        ExportError: numpy does not have the type of one, so onnxruntime does not take it.
    """
    try:
        return [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    except RuntimeError as err:
        raise ExportError(f"onnxruntime does not take the model's weights: {err}") from err

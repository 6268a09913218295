"""ONNX models in OpenVINO on the CPU, in float32 (it would take bfloat16 where it can)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.runtimes import installed, providers, whole
from ltmp_export.runtimes.session import Options, Source

NAME = "OpenVINO"
ERRORS: tuple[type[Exception], ...] = (RuntimeError,)
SHARES = INNER = True
MODULES = ("openvino",)
EXTRA = "openvino"


class OpenVino:
    """A model in OpenVINO, see `runtimes.session.Engine`."""

    def __init__(self, source: Source, options: Options) -> None:
        installed.require("openvino")
        import openvino

        providers.require_none(NAME, options.providers)
        core = openvino.Core()
        if isinstance(source, Path):
            model: Any = str(source)
        else:
            model = core.read_model(whole.in_memory(source))
        hints = {
            "INFERENCE_NUM_THREADS": options.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(model, "CPU", hints)
        self._request = compiled.create_infer_request()
        self._outputs = 1 if options.only_first else len(compiled.outputs)
        self.engine = f"{NAME} {openvino.__version__.split('-')[0]}"
        self.provider = "CPU"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """The images as they are."""
        return images

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs, copied: the request reuses its memory."""
        found = self._request.infer([inputs], share_inputs=True)
        return [np.array(found[place]) for place in range(self._outputs)]


def open_engine(source: Source, options: Options) -> OpenVino:
    """Load a model, see `runtimes.session.Runtime`."""
    return OpenVino(source, options)

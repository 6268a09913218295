"""Runtimes as a timing process sees them: open once, make inputs, run.

What a runtime needs is imported only where it is opened: the memory of a process is then that of
its own runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A model that is ready to run.

    Attributes:
        engine: The runtime and its version, for a person.
    """

    engine: str

    def inputs(self, pixels: NDArray[np.float32], rows: Sequence[int]) -> Any:
        """What `run` takes, made of [B, channels, H, W]; not timed."""

    def run(self, inputs: Any) -> NDArray[np.float32]:
        """Logits [B, classes] of one batch."""


def open_engine(start: Mapping[str, Any]) -> Engine:
    """The engine of a contender (`Contender.start`), with `threads`."""
    kinds = {"onnxruntime": OnnxRuntime, "gemms": Gemms, "eager": Eager, "openvino": OpenVino}
    made: Engine = kinds[start["kind"]](start)
    return made


class OnnxRuntime:
    """An ONNX file in onnxruntime.

    Its threads spin during a run, as they do where one model is deployed. Between rounds they
    sleep: they stop spinning within milliseconds of a run.
    """

    def __init__(self, start: Mapping[str, Any], profile: Path | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = start["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        providers = list(start["providers"]) or ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(start["file"], options, providers=providers)
        self.engine = f"onnxruntime {ort.__version__}"
        given = self.session.get_inputs()[0]
        self._input = given.name
        self._number = np.float16 if given.type == "tensor(float16)" else np.float32
        self._output = [self.session.get_outputs()[0].name]

    def inputs(self, pixels: NDArray[np.float32], rows: Sequence[int]) -> Any:
        """A feed of the one input, in the numbers it takes."""
        return {self._input: pixels.astype(self._number, copy=False)}

    def run(self, inputs: Any) -> NDArray[np.float32]:
        """The first output."""
        found: list[NDArray[np.float32]] = self.session.run(self._output, inputs)
        return found[0]


class Gemms(OnnxRuntime):
    """Matrix products alone, see `roofline`: an input of `rows` rows for each of them."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        super().__init__(start)
        self._names = [(value.name, value.shape[1]) for value in self.session.get_inputs()]
        self._rows: dict[int, NDArray[np.float32]] = {}

    def inputs(self, pixels: NDArray[np.float32], rows: Sequence[int]) -> Any:
        """Views of `rows` rows of random numbers, one for each product."""
        feeds = {}
        for (name, width), count in zip(self._names, rows, strict=True):
            if len(self._rows.get(width, ())) < count:
                generator = np.random.default_rng(width)
                self._rows[width] = generator.standard_normal((count, width), np.float32)
            feeds[name] = self._rows[width][:count]
        return feeds


class OpenVino:
    """An ONNX file in OpenVINO on the CPU, in float32 (it would take bfloat16 where it can)."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        import openvino

        hints = {
            "INFERENCE_NUM_THREADS": start["threads"],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(start["file"], "CPU", hints)
        self._request = compiled.create_infer_request()
        self.engine = f"OpenVINO {openvino.__version__.split('-')[0]}"

    def inputs(self, pixels: NDArray[np.float32], rows: Sequence[int]) -> Any:
        """The pixels as they are."""
        return pixels

    def run(self, inputs: Any) -> NDArray[np.float32]:
        """The first output, copied: the request reuses its memory."""
        found = self._request.infer([inputs], share_inputs=True)
        return np.array(found[0])


class Eager:
    """The literal translation of a checkpoint in PyTorch, one image at a time."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        import torch

        from ltmp_export.timing import literal

        torch.set_num_threads(start["threads"])
        self._torch = torch
        self._model = literal.load(start["file"], start["choices"], start["base_checkpoint"])
        self.engine = f"PyTorch {torch.__version__.split('+')[0]}"

    def inputs(self, pixels: NDArray[np.float32], rows: Sequence[int]) -> Any:
        """A tensor of the same memory."""
        return self._torch.from_numpy(pixels)

    def run(self, inputs: Any) -> NDArray[np.float32]:
        """The model's logits."""
        with self._torch.inference_mode():
            logits: NDArray[np.float32] = self._model(inputs).numpy()
        return logits

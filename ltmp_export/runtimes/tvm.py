"""ONNX models in Apache TVM on the CPU: compiled for this processor, for each batch that is run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.files.streams import silence
from ltmp_export.runtimes import converting, installed, providers
from ltmp_export.runtimes.session import Options, Source

NAME = "TVM"
# Its own are all of these kinds; the others are what its importer runs into.
ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError,
)  # fmt: skip
SHARES = False
INNER = True
MODULES = ("tvm",)
EXTRA = "tvm"


class Tvm:
    """A model in TVM, see `runtimes.session.Engine`.

    A free batch is written down before, since its importer wants to know all shapes; that compiles
    for a minute or so at each size. What it compiles is not tuned, and runs in one thread.
    """

    def __init__(self, source: Source, options: Options) -> None:
        installed.require("tvm")
        providers.require_none(NAME, options.providers)
        self._model, self._only_first = converting.read(source), options.only_first
        self._face = converting.interface(self._model)
        self._machines: dict[int, Any] = {}
        with silence():
            import tvm

        self._tvm = tvm
        self.engine = f"{NAME} {tvm.__version__}"
        self.provider = "CPU"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """The images as a tensor, beside the machine for their batch."""
        taken = self._face.taken(images)
        size = len(images)
        if size not in self._machines:
            with silence(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its importer; what it refuses, it raises
                self._machines[size] = self._built(size)
        return self._machines[size], self._tvm.runtime.tensor(taken)

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs, copied."""
        machine, images = inputs
        found = machine["main"](images)
        outputs = [found] if hasattr(found, "numpy") else list(found)
        chosen = outputs[: 1 if self._only_first else None]
        return self._face.given([one.numpy() for one in chosen])

    def _built(self, size: int) -> Any:
        """A virtual machine with the model for a batch size."""
        import onnx
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        converting.fix_batch(copy, size)
        built = self._tvm.compile(from_onnx(copy), target=self._tvm.target.Target("llvm"))
        return relax.VirtualMachine(built, self._tvm.cpu())


def open_engine(source: Source, options: Options) -> Tvm:
    """Load a model, see `runtimes.session.Runtime`."""
    return Tvm(source, options)

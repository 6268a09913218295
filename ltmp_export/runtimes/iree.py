"""ONNX models in IREE on the CPU: compiled for this processor, once for all batch sizes."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.files.streams import silence
from ltmp_export.files.workplace import workplace
from ltmp_export.runtimes import converting, installed, providers
from ltmp_export.runtimes.session import Options, Source

NAME = "IREE"
ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError)
SHARES = False
INNER = True
MODULES = ("iree.compiler", "iree.runtime")
EXTRA = "iree"
# With these a file of a free batch compiles, and fails when it runs.
RAGGED = {"Compress", "NonZero"}
_COMPILE = """
from iree.compiler.tools import compile_file
from iree.compiler.tools.import_onnx import __main__ as importing
model, graph, target = sys.argv[1:]
if importing.main(importing.parse_arguments([model, "-o", graph])):
    sys.exit(1)
how = ["--iree-llvmcpu-target-cpu=host", "--iree-opt-const-eval=false"]  # which takes a quarter
compile_file(graph, output_file=target, target_backends=["llvm-cpu"], extra_args=how)
"""


class Iree:
    """A model in IREE, see `runtimes.session.Engine`.

    A free batch stays free where shapes do not depend on data besides, and is compiled once, which
    takes minutes. Where IREE does not compile or run that, a batch size is written down before, and
    each size compiled.
    """

    def __init__(self, source: Source, options: Options) -> None:
        installed.require("iree")
        providers.require_none(NAME, options.providers)
        self._model, self._only_first = converting.read(source), options.only_first
        self._face = converting.interface(self._model)
        self._compiled: dict[int, Any] = {}
        kinds = {node.op_type for node in self._model.graph.node}
        self._open = self._face.sides[0] is None and not kinds & RAGGED
        self._for_all: Any = None
        with silence():
            import iree.runtime

            self._iree = iree.runtime
            count = f"--task_topology_group_count={options.threads}"
            iree.runtime.flags.parse_flags(count)  # of all that this process opens
            driver = "local-sync" if options.threads == 1 else "local-task"
            self._config = iree.runtime.Config(driver)
        _leave_quietly()
        self.engine = f"{NAME} {installed.version('iree')}"
        self.provider = "CPU"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """The images on IREE's device, beside the function for their batch."""
        taken = self._face.taken(images)
        given = self._iree.asdevicearray(self._config.device, taken)
        return self._function(len(images), given), given

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs, copied."""
        function, images = inputs
        found = function(images)
        outputs = list(found) if isinstance(found, (tuple, list)) else [found]
        chosen = outputs[: 1 if self._only_first else None]
        return self._face.given([one.to_host() for one in chosen])

    def _function(self, size: int, images: Any) -> Any:
        """The model's function that takes so many images."""
        if self._open:
            self._open = False
            with contextlib.suppress(*ERRORS):  # what it says of one size tells more
                function = self._loaded(None)
                function(images)
                self._for_all = function
        if self._for_all is not None:
            return self._for_all
        if size not in self._compiled:
            self._compiled[size] = self._loaded(size)
        return self._compiled[size]

    def _loaded(self, size: int | None) -> Any:
        """The model's function for a batch size, or None for all that the file takes."""
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        if size is not None:
            converting.fix_batch(copy, size)
        with workplace() as folder:
            onnx.save(copy, folder / "model.onnx")
            try:
                converting.run(
                    _COMPILE, *(folder / f"model.{kind}" for kind in ("onnx", "mlir", "vmfb"))
                )
            except RuntimeError as err:
                raise RuntimeError(_said(str(err))) from err
            compiled = (folder / "model.vmfb").read_bytes()
        context = self._iree.SystemContext(config=self._config)
        module = self._iree.VmModule.copy_buffer(context.instance, compiled)
        context.add_vm_module(module)
        (name,) = (one for one in module.function_names if not one.endswith(("__init", "$async")))
        return context.modules[module.name][name]


def open_engine(source: Source, options: Options) -> Iree:
    """Load a model, see `runtimes.session.Runtime`."""
    return Iree(source, options)


@functools.cache
def _leave_quietly() -> None:
    """From where this process ends, keep IREE's hundred lines on its own leaks from being seen."""

    def close() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(close)


def _said(written: str) -> str:
    """What the importer or the compiler holds against a model, in one line."""
    told = re.search(r"\berror: (.+)", written)
    if told is None:
        return written.removesuffix("the conversion failed").strip().splitlines()[-1]
    operator = re.search(r'torch\.operator "onnx\.(\w+)"', written[told.end() :])
    return told[1] if operator is None else f"{operator[1]}: {told[1]}"

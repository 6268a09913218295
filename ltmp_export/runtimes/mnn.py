"""ONNX models in MNN (Alibaba) on the CPU, in float32: converted first, then run at any batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.files.streams import silence
from ltmp_export.files.workplace import workplace
from ltmp_export.runtimes import converting, installed, providers, whole
from ltmp_export.runtimes.session import Options, Source

NAME = "MNN"
ERRORS: tuple[type[Exception], ...] = (RuntimeError,)
SHARES = False
INNER = True
MODULES = ("MNN", "_tools")
EXTRA = "mnn"
# Its own program of that name does the same, and installs a package that reports its use.
_CONVERT = "import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


class Mnn:
    """A model in MNN, see `runtimes.session.Engine`.

    Its threads spin while they wait for each other, also where others need their processors: a run
    that is to spare those takes one.
    """

    def __init__(self, source: Source, options: Options) -> None:
        installed.require("mnn")
        providers.require_none(NAME, options.providers)
        self._face = converting.interface(converting.read(source))
        names = self._face.names[: 1 if options.only_first else None]
        with silence():  # it tells the processor's abilities
            import MNN.expr
            import MNN.nn

        self._expr = MNN.expr
        with workplace() as folder, whole.on_disk(source) as path:
            target = folder / "model.mnn"
            _convert(path, target)
            with silence():
                self._module = MNN.nn.load_module_from_file(
                    str(target), [self._face.images], list(names),
                    thread_num=1 if options.sparing else options.threads,
                    precision_mode=MNN.expr.PrecisionMode.High,
                )  # fmt: skip
        self.engine = f"{NAME} {MNN.version()}"
        self.provider = "CPU"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """A tensor of the images, in float32: it has no other floats on this processor."""
        taken = self._face.taken(images).astype(np.float32)
        variable = self._expr.placeholder(list(images.shape), self._expr.NCHW)
        variable.write(taken)
        return variable

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs, copied."""
        with silence():
            found = self._module.forward([inputs])
            if not found:
                raise RuntimeError("it computes no outputs of these images, and does not say why")
            plain = [self._expr.convert(one, self._expr.NCHW).read() for one in found]
        return self._face.given(plain)


def _convert(path: Path, target: Path) -> None:
    """Write a model as MNN's own file.

    Raises:
        RuntimeError: MNN does not take it.
    """
    said = converting.run(
        _CONVERT, "-f", "ONNX", "--modelFile", path, "--MNNModel", target, "--bizCode", "ltmp"
    )
    if not target.exists():
        raise RuntimeError(_told(said))


def _told(said: str) -> str:
    """What the converter holds against a model, in one line."""
    lacking = re.search(r"Op Not Support: (.+)", said)
    if lacking is not None:
        return f"it has no operator {', '.join(re.findall('ONNX::([A-Za-z]+)', lacking[1]))}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it converts nothing, and does not say why"


def open_engine(source: Source, options: Options) -> Mnn:
    """Load a model, see `runtimes.session.Runtime`."""
    return Mnn(source, options)

"""One file in one runtime, in a process of its own: `python -m tests.makers.matrix_cells`.

    matrix_cells RUNTIME MODEL.onnx FED.npz FOLDER

records into the folder, as `ltmp check --recorded` reads it, what each batch gives, and in
`told.json` the runtime's version and, by batch size, what it said where it refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.runtimes import session
from ltmp_export.runtimes.session import Options
from tests.makers import recordings

Run: TypeAlias = Callable[[NDArray[np.float32]], list[NDArray[Any]]]
TOLD = "told.json"
SIZES = (7, 2, 1)  # the largest first: it is what runtimes refuse


def product(name: str, *providers: str) -> Callable[[Path], tuple[str, Run]]:
    """One of the runtimes of `ltmp check`."""

    def opened(file: Path) -> tuple[str, Run]:
        options = Options(1, providers, sparing=True, quiet=True)
        engine = session.load(name).open_engine(file, options)
        return engine.engine.rpartition(" ")[2], lambda images: engine.run(engine.inputs(images))

    return opened


def reference(file: Path) -> tuple[str, Run]:
    """Onnx's own, in Python."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(file))
    return version("onnx"), lambda images: evaluator.run(None, {"images": images})  # type: ignore[return-value]


def onnx2torch(file: Path) -> tuple[str, Run]:
    """A file as a PyTorch module."""
    import onnx2torch as package

    return version("onnx2torch"), _module(package.convert(str(file)))


def onnx2pytorch(file: Path) -> tuple[str, Run]:
    """Likewise."""
    import onnx2pytorch as package

    return version("onnx2pytorch"), _module(
        package.ConvertModel(onnx.load(file), experimental=True).eval()
    )


def _module(module: Any) -> Run:
    import torch

    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            found = module(torch.from_numpy(images))
        return [one.numpy() for one in (found if isinstance(found, (tuple, list)) else [found])]

    return run


OPENED: Mapping[str, Callable[[Path], tuple[str, Run]]] = {
    "onnxruntime": product("onnxruntime"),
    "onnxruntime-openvino": product("onnxruntime", "OpenVINOExecutionProvider"),
    "OpenVINO": product("openvino"),
    "tract": product("tract"),
    "IREE": product("iree"),
    "MNN": product("mnn"),
    "TVM": product("tvm"),
    "onnx2pytorch": onnx2pytorch,
    "onnx2torch": onnx2torch,
    "onnx's ReferenceEvaluator": reference,
}


def main(runtime: str, model: str, fed: str, folder: str) -> None:
    with np.load(fed) as given:
        images, digest = given["images"], given["digest"]
    proto = onnx.load(model, load_external_data=False)
    names = [output.name for output in proto.graph.output]
    single = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    told: dict[str, Any] = {"version": "", "refused": {}}
    arrays: recordings.Arrays = {"digest": digest}
    run: Run | None = None
    for size in (1,) if single else SIZES:
        try:
            if run is None:
                told["version"], run = OPENED[runtime](Path(model))
            for which in range(len(images) // size):
                part = np.ascontiguousarray(images[which * size : which * size + size])
                found = zip(names, run(part), strict=True)
                arrays |= {f"batch_{size}/{which}/{name}": array for name, array in found}
        except Exception as err:  # whatever a runtime raises: it is told
            told["refused"][size] = f"{type(err).__name__}: {err}"
            if run is None:
                break
    recordings.write(Path(folder), arrays)
    Path(folder, TOLD).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Recordings of models that ran here, as a device would make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.images import fed
from ltmp_export.images.inputs import Images
from ltmp_export.runtimes.session import Session

Arrays = dict[str, NDArray[Any]]


def recorded(model: onnx.ModelProto, images: Images, sizes: Sequence[int]) -> Arrays:
    """What onnxruntime gives, run by run, and of which images."""
    session = Session(model, threads=1)
    names = [output.name for output in model.graph.output]
    found: Arrays = {fed.DIGEST: fed.digest(images.pixels)}
    for size in sizes:
        for which in range(len(images) // size):
            given = session.run(images.pixels[which * size : which * size + size])
            found |= {f"batch_{size}/{which}/{n}": v for n, v in zip(names, given, strict=True)}
    return found


def write(path: Any, arrays: Arrays) -> None:
    """As an `.npz`, or as `.npy` files in a folder."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return
    for name, array in arrays.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", array)

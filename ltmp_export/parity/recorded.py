"""What a device, a browser or another runtime computed elsewhere, recorded to be judged here.

A recording is an `.npz`, or a folder of `.npy` files whose paths are the names:

    digest               uint8 [32], as `ltmp inputs` wrote it: of which images
    batch_B/K/NAME       what run K of batches of B gave by that name, as it gave it: outputs of
                         the file, and perhaps inner tensors. Run K takes images K·B to K·B + B - 1

All outputs of the file must be there, of every run. Only where all inner tensors are, too, they
are compared, and the file's decisions with them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.errors import ExportError, InputError
from ltmp_export.files import disk, memory
from ltmp_export.files.arrays import UNREADABLE, reason
from ltmp_export.graph import interface
from ltmp_export.images import fed
from ltmp_export.images.inputs import Images
from ltmp_export.parity.computed import Runner
from ltmp_export.parity.replay import fits
from ltmp_export.parity.runs import Run
from ltmp_export.plan.geometry import Geometry, Shape

COUNTED = ("token_counts", "overflow")  # [depth] of each image, whole numbers


def name(size: int, which: int, tensor: str) -> str:
    """Of a tensor of one run, in a recording."""
    return f"batch_{size}/{which}/{tensor}"


class Recorded:
    """A recording, see `computed.Computed`.

    Args:
        path: The `.npz` or folder.

    Raises:
        InputError: It is neither, or holds no arrays.
    """

    reverses = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read, self._names = _opened(path)
        self.told, self.why_outputs_only = f"a recording, {path}", ""
        self._sizes: tuple[int, ...] = ()
        self._outputs: tuple[str, ...] = ()
        self._count = 0

    def require(
        self,
        model: onnx.ModelProto,
        geometry: Geometry,
        images: Images,
        batch_sizes: Sequence[int],
    ) -> None:
        """Check that it is of these images and of these batches, whole and of numbers.

        Every image is judged alone, too, so batches of 1 must be there.

        Raises:
            InputError: Something is missing, of another shape, or no number.
        """
        self._sizes = tuple(dict.fromkeys((1, *batch_sizes)))
        if interface.fixed_batch(model) not in (None, 1):
            self._sizes = tuple(batch_sizes)
        self._count = len(images)
        self._outputs = tuple(output.name for output in model.graph.output)
        if fed.DIGEST not in self._names:
            raise InputError(
                f"{self._path} has no {fed.DIGEST}, which tells of which images it is; copy the "
                "one that 'ltmp inputs' wrote beside the images"
            )
        fed.require_same(images.pixels, self._array(fed.DIGEST), str(self._path))
        shapes: dict[str, Shape] = dict.fromkeys(COUNTED, (geometry.depth,))
        shapes |= geometry.outputs
        for size, which in self._runs():
            for tensor in self._outputs:
                self._require_output(size, which, tensor, shapes.get(tensor))

    def _require_output(self, size: int, which: int, tensor: str, shape: Shape | None) -> None:
        key = name(size, which, tensor)
        if key not in self._names:
            first, last = which * size, which * size + size - 1
            raise InputError(
                f"{self._path} lacks {key}: what the model gives as {tensor} of images {first} to "
                f"{last} in one batch; batches of {', '.join(map(str, self._sizes))} are needed"
            )
        array = self._array(key)
        if shape is not None and not fits(array.shape, (size, *shape)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            found = f"{self._path}: {key} has the shape {list(array.shape)}"
            raise InputError(f"{found}; expected [{size}, {wanted}]")
        if array.dtype.kind not in "fiu":
            raise InputError(f"{self._path}: {key} is {array.dtype}; expected numbers")
        if not np.isfinite(array).all():
            raise InputError(f"{self._path}: {key} holds a NaN or an infinite number")
        if tensor in COUNTED and not (array == np.floor(array)).all():
            raise InputError(f"{self._path}: {key} holds numbers that are no whole ones")

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Size and number of each batch."""
        for size in self._sizes:
            for which in range(self._count // size):
                yield size, which

    def plain(self) -> Runner:
        """Its outputs."""
        return _Runs(self._array, dict.fromkeys(self._outputs))

    def tapped(self, wanted: Mapping[str, int]) -> Runner | None:
        """With inner tensors, where it has all of them.

        Raises:
            InputError: One of them is of another type.
        """
        keys = [name(size, which, tensor) for size, which in self._runs() for tensor in wanted]
        missing = [key for key in keys if key not in self._names]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            self.why_outputs_only = f"{self._path} lacks the inner tensor {missing[0]}{more}"
            return None
        types = {
            tensor: onnx.helper.tensor_dtype_to_np_dtype(kind) for tensor, kind in wanted.items()
        }
        for key in keys:
            array = self._array(key)
            if array.dtype.kind not in "fiub" or not array.ndim:
                raise InputError(
                    f"{self._path}: {key} is {array.dtype}{list(array.shape)}; expected numbers"
                )
        return _Runs(self._array, dict.fromkeys(self._outputs) | types)

    def keeps(self, err: ExportError) -> bool:
        """What was recorded is there, or the recording is refused."""
        return False

    def _array(self, key: str) -> NDArray[Any]:
        """One of its arrays.

        Raises:
            InputError: It cannot be read.
        """
        try:
            array = self._read(key)
        except UNREADABLE as err:
            raise InputError(f"{self._path}: {key} cannot be read: {reason(err)}") from err
        if not isinstance(array, np.ndarray):
            raise InputError(f"{self._path}: {key} is no array; save it with numpy.save")
        return array


class _Runs:
    """The arrays of a recording as a `Runner`, each in its type where one is said."""

    def __init__(
        self, read: Callable[[str], NDArray[Any]], types: Mapping[str, np.dtype[Any] | None]
    ) -> None:
        self._read, self._types = read, types

    def run(self, run: Run, which: int, pixels: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """What was recorded of a batch."""
        return {
            tensor: _as(self._read(name(run.size, which, tensor)), kind)
            for tensor, kind in self._types.items()
        }


def _as(array: NDArray[Any], kind: np.dtype[Any] | None) -> NDArray[Any]:
    """Float16 as float32, and what is of a known type in that."""
    if kind is not None:
        return array.astype(kind)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _opened(path: Path) -> tuple[Callable[[str], NDArray[Any]], frozenset[str]]:
    """How to read one of its arrays, and the names of all.

    Raises:
        InputError: It is neither a folder of `.npy` files nor an `.npz`, or it is too large.
    """
    if path.is_dir():
        found = {
            file.relative_to(path).with_suffix("").as_posix(): file for file in path.rglob("*.npy")
        }
        if not found:
            raise InputError(f"{path} holds no .npy files; expected a recording")
        memory.require_memory(sum(file.stat().st_size for file in found.values()), str(path))
        return lambda key: np.load(found[key], allow_pickle=False), frozenset(found)
    disk.require_file(path, "a recording: an .npz, or a folder of .npy files")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        memory.require_memory(size, str(path))
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except UNREADABLE as err:
        raise InputError(f"{path} is no recording, a readable .npz: {reason(err)}") from err
    return arrays.__getitem__, frozenset(arrays)

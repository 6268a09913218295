"""The closed table of names that a pickle may use, and the plain value each gives.

It holds what PyTorch and timm write. Every constructor here takes what the file says and must
survive anything: it calls nothing that the file names, and shows no value of unknown depth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ltmp_export.checkpoint.containers.elements import BY_NAME, ElementType
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor


class PickleError(DamagedError):
    """It is damaged, or not what PyTorch writes."""


class ForbiddenGlobalError(PickleError):
    """It asks for something that is not in the table.

    Attributes:
        name: Module and name, as the pickle has it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class StorageClaim:
    """The memory of tensors, by its name in the file.

    Attributes:
        key: Name of the record.
        dtype: Element type; None for plain bytes, whose tensors bring their own.
        size: Number of elements, as the pickle claims.
    """

    key: str
    dtype: ElementType | None
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * (1 if self.dtype is None else self.dtype.itemsize)


@dataclass(frozen=True)
class TensorClaim:
    """A tensor as a pickle describes it: a strided view of a storage."""

    storage: StorageClaim
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: ElementType


@dataclass(frozen=True)
class Global:
    """A name in the table; `build` makes the plain value of a call, if it may be called."""

    name: str
    build: Callable[..., Any] | None = None
    value: Any = None


class NumpyDtype:
    """A NumPy element type, whose byte order comes after it is made."""

    def __init__(self, code: str, *flags: Any) -> None:
        if code[:1] not in "biufc" or not code[1:].isdigit():
            raise PickleError(f"a NumPy scalar of type {code[:20]!r}")
        self.dtype = np.dtype(code)

    def order(self, state: Any) -> None:
        """Take the byte order out of the state that NumPy pickles."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any, dtype: Any = None
) -> TensorClaim:
    """`torch._utils._rebuild_tensor_v2`: gradient flags and hooks are of no use here."""
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, StorageClaim) or len(shape) != len(stride) or len(shape) > 64:
        raise PickleError("a tensor without storage or with contradictory axes")
    if not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise PickleError("a tensor of sizes that are no sizes")
    if math.prod(size for size in shape if size) >= 2**62:
        raise PickleError("a tensor of sizes that are no sizes")
    kind = storage.dtype if dtype is None else dtype
    if not isinstance(kind, ElementType):
        raise PickleError("a tensor without element type")
    return TensorClaim(storage, offset, tuple(shape), tuple(stride), kind)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *rest: Any,
) -> TensorClaim:
    """`torch._utils._rebuild_tensor_v3`: the storage is bytes, the element type comes beside it."""
    return _tensor(storage, offset, shape, stride, dtype=dtype)


def _scalar(dtype: Any, data: Any) -> bool | int | float | complex:
    """A NumPy scalar as Python's."""
    if not isinstance(dtype, NumpyDtype) or not isinstance(data, bytes):
        raise PickleError("a NumPy scalar without its bytes")
    if len(data) != dtype.dtype.itemsize:
        raise PickleError("a NumPy scalar of the wrong length")
    value: bool | int | float | complex = np.frombuffer(data, dtype.dtype)[0].item()
    return value


def _parameter(data: Any, *rest: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise PickleError("a parameter that is no tensor")
    return data


def _dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    made = {}
    for key, value in pairs:
        made[as_key(key)] = value
    return made


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """What protocols 0 and 1 write for `object.__new__(kind)`."""
    if not isinstance(kind, Global) or kind.name != "argparse.Namespace" or state is not None:
        raise PickleError("an object of a class that is none of PyTorch's")
    return argparse.Namespace()


def _namespace() -> argparse.Namespace:
    return argparse.Namespace()


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise PickleError("bytes in a strange encoding")
    return text.encode("latin1")


def _path(kind: type[PurePath]) -> Callable[..., PurePath]:
    return lambda *parts: kind(*map(str, _words(parts)))


def _words(parts: tuple[Any, ...]) -> tuple[str | int, ...]:
    """Parts of a name; the text of anything else could be endless."""
    if not all(isinstance(part, (str, int)) for part in parts):
        raise PickleError("a name that is no text")
    return parts


_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}


def _table() -> dict[str, Global]:
    """Everything a pickle may name."""
    calls: dict[str, Callable[..., Any] | None] = {
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.Size": lambda sizes: tuple(sizes),
        "torch.device": lambda *parts: ":".join(map(str, _words(parts))),
        "collections.OrderedDict": _dict,
        "argparse.Namespace": _namespace,
        "copyreg._reconstructor": _reconstructed,
        "builtins.object": None,
        "builtins.set": lambda items=(): {as_key(item) for item in items},
        "builtins.frozenset": lambda items=(): frozenset(as_key(item) for item in items),
        "_codecs.encode": _encode,
        "numpy.dtype": NumpyDtype,
        "numpy.core.multiarray.scalar": _scalar,
        "numpy._core.multiarray.scalar": _scalar,
    }
    for module in ("pathlib", "pathlib._local"):
        for flavour, kind in (("Posix", PurePosixPath), ("Windows", PureWindowsPath)):
            calls |= {f"{module}.{pure}{flavour}Path": _path(kind) for pure in ("", "Pure")}
    found = {name: Global(name, build) for name, build in calls.items()}
    for name, dtype in _STORAGES.items():
        found[f"torch.{name}Storage"] = Global(f"torch.{name}Storage", None, BY_NAME[dtype])
    found["torch.storage.UntypedStorage"] = Global("torch.storage.UntypedStorage")
    return found | {str(dtype): Global(str(dtype), None, dtype) for dtype in BY_NAME.values()}


GLOBALS = _table()
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2, up to protocol 2


def as_key(value: Any) -> Any:
    """A key of a dictionary or set: hashing a deeply nested one would overflow the C stack."""
    flat = (str, int, float, bool, bytes, type(None))
    if isinstance(value, flat):
        return value
    if isinstance(value, tuple) and len(value) < 9 and all(isinstance(p, flat) for p in value):
        return value
    raise PickleError(f"a {type(value).__name__} as a key")

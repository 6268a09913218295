"""The two containers of `torch.save`: a zip archive, and before PyTorch 1.6 a sequence of pickles.

A zip archive holds `NAME/data.pkl` and a record `NAME/data/KEY` for each storage. The older form
is a magic number, a version and a description of the machine, then the value, then the storages'
keys, all pickled, and last each storage: its number of elements (int64) and its bytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ltmp_export.checkpoint.containers import pickles
from ltmp_export.checkpoint.containers.known import StorageClaim, TensorClaim
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor

if TYPE_CHECKING:
    import torch

MAGIC = 0x1950A86A20F9469CFC6C
_CHUNK = 1 << 22

Bytes = NDArray[np.uint8]
Reader = Callable[[StorageClaim], Bytes]  # of the whole storage

# What Python's zip reader raises on damaged, encrypted or exotic archives.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
)


def read_zip(path: Path) -> Any:
    """The value in a file of PyTorch 1.6 or later.

    Raises:
        DamagedError: The archive or its pickle is damaged, or asks for what is not allowed.
    """
    try:
        archive = zipfile.ZipFile(path)  # open as long as its tensors can be read
        root = _root(archive.namelist())
        if archive.getinfo(f"{root}data.pkl").file_size > pickles.MOST_BYTES:
            raise DamagedError(f"its pickle has more than {pickles.MOST_BYTES >> 20} MiB")
        if f"{root}byteorder" in archive.namelist():
            with archive.open(_plain_record(archive, f"{root}byteorder")) as file:
                if file.read(9) != b"little":
                    raise DamagedError("it was written on a big-endian machine")
        with archive.open(_plain_record(archive, f"{root}data.pkl")) as file:
            content = file.read(pickles.MOST_BYTES)  # what it unpacks to, whatever it claims
    except _ZIP_ERRORS as err:
        raise DamagedError(str(err)) from err
    reader = partial(_zip_record, archive, root)
    return pickles.load(io.BytesIO(content), lambda claim: _tensor(claim, reader))


def _plain_record(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A record that unpacks piece by piece; bzip2 and LZMA unpack bytes to gigabytes at once.

    Raises:
        DamagedError: It is packed in a way that PyTorch does not read either.
        KeyError: There is none.
    """
    record = archive.getinfo(name)
    if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DamagedError(f"a record packed by method {record.compress_type}")
    return record


def _root(names: list[str]) -> str:
    """The folder inside the archive."""
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise DamagedError(f"an archive with {len(found)} data.pkl, where PyTorch writes one")
    root = found[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise DamagedError("a TorchScript program; save the model's state_dict instead")
    return root


def _zip_record(archive: zipfile.ZipFile, root: str, storage: StorageClaim) -> Bytes:
    try:
        record = _plain_record(archive, f"{root}data/{storage.key}")
        if record.file_size != storage.nbytes:
            raise DamagedError(
                f"{storage.nbytes} bytes are claimed, its record has {record.file_size}"
            )
        with archive.open(record) as file:
            return _fill(file, storage.nbytes)
    except _ZIP_ERRORS as err:
        raise DamagedError(str(err)) from err


def read_sequence(path: Path) -> Any:
    """The value in a file as PyTorch wrote it before 1.6.

    Raises:
        DamagedError: It is damaged, or asks for what is not allowed.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(pickles.MOST_BYTES))
    claims: dict[str, StorageClaim] = {}
    places: dict[str, int] = {}
    reader = partial(_sequence_record, path, places)

    def tensor(claim: TensorClaim) -> StoredTensor:
        claims.setdefault(claim.storage.key, claim.storage)
        return _tensor(claim, reader)

    if pickles.load(head, tensor) != MAGIC:
        raise DamagedError("a pickle, but none that torch.save wrote")
    pickles.load(head, tensor)  # version of the protocol
    pickles.load(head, tensor)  # byte order and sizes of the machine
    value = pickles.load(head, tensor)
    keys = pickles.load(head, tensor)
    if not isinstance(keys, list) or not all(isinstance(k, str) and k in claims for k in keys):
        raise DamagedError("the list of its storages is not that of its tensors")
    place = head.tell()
    for key in keys:
        places[key] = place
        place += 8 + claims[key].nbytes
    if place > path.stat().st_size:
        raise DamagedError(f"{place} bytes are claimed, the file has {path.stat().st_size}")
    return value


def _sequence_record(path: Path, places: Mapping[str, int], storage: StorageClaim) -> Bytes:
    if storage.key not in places:
        raise DamagedError("it is not in the list of storages")
    with path.open("rb") as file:
        file.seek(places[storage.key])
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise DamagedError(f"{storage.size} numbers are claimed, its record has {size}")
        return _fill(file, storage.nbytes)


def _fill(file: BinaryIO | Any, size: int) -> Bytes:
    """The next `size` bytes, into memory of their own."""
    data = np.empty(size, np.uint8)
    at = 0
    while at < size:
        chunk = file.read(min(_CHUNK, size - at))
        if not chunk:
            raise DamagedError(f"{size} bytes are claimed, there are {at}")
        data[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return data


def _tensor(claim: TensorClaim, reader: Reader) -> StoredTensor:
    read, first = partial(_read, claim, reader), partial(_first, claim, reader)
    return StoredTensor(claim.shape, claim.dtype, claim.storage.nbytes, read, first)


def _read(claim: TensorClaim, reader: Reader) -> torch.Tensor:
    _require_within(claim)
    import torch

    numbers, dtype = torch.from_numpy(reader(claim.storage)), claim.dtype.torch
    if claim.storage.nbytes % claim.dtype.itemsize:
        raise DamagedError(f"its storage of {claim.storage.nbytes} bytes holds no whole numbers")
    if 0 in claim.shape:
        return torch.empty(claim.shape, dtype=dtype)
    return numbers.view(dtype).as_strided(claim.shape, claim.stride, claim.offset)


def _first(claim: TensorClaim, reader: Reader) -> bytes:
    _require_within(claim)
    width = claim.dtype.itemsize
    return reader(claim.storage)[claim.offset * width :][:width].tobytes()


def _require_within(claim: TensorClaim) -> None:
    """Check that a tensor lies within its storage.

    Raises:
        DamagedError: It does not.
    """
    steps = zip(claim.shape, claim.stride, strict=True)
    last = claim.offset + sum((count - 1) * step for count, step in steps)
    if 0 not in claim.shape and (last + 1) * claim.dtype.itemsize > claim.storage.nbytes:
        raise DamagedError(f"it claims the shape {claim.shape} but holds fewer numbers")

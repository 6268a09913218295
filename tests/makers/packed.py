"""The same labelled pictures in every form that is read: folders, tar shards, parquet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.makers import digits

Sample = tuple[str, Mapping[str, bytes]]  # a key, and what stands under it by its ending


def png(seed: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encoded(pixels)


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def tar(path: Path, samples: Sequence[Sample]) -> Path:
    """A shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for key, parts in samples:
            for ending, content in parts.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def parquet(
    path: Path,
    pictures: Sequence[bytes | str],
    labels: Sequence[int | str | None] | None,
    names: Sequence[str] | None = None,
    rows: int = 3,
) -> Path:
    """A table as `datasets` writes it: `names` of the classes, so many rows to a group."""
    import pyarrow as pa
    from pyarrow import parquet as written

    structs = [
        {"bytes": None, "path": one} if isinstance(one, str) else {"bytes": one, "path": f"{i}.png"}
        for i, one in enumerate(pictures)
    ]
    columns = {
        "image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    }
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels)
    if names is not None:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    written.write_table(pa.table(columns).replace_schema_metadata(told), path, row_group_size=rows)
    return path


def digits_pictures(count: int) -> tuple[list[bytes], list[int]]:
    """Handwritten digits as pictures, and their classes."""
    images, labels = digits.arrays()
    grey = (127.5 * (images[:count, 0] + 1)).round().astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=3)
    return [encoded(one) for one in pixels], [int(label) for label in labels[:count]]


def digits_shards(folder: Path, count: int, shards: int) -> Path:
    """The same in tar shards."""
    pictures, labels = digits_pictures(count)
    samples = [
        (f"{i:05d}", {"png": picture, "cls": str(label).encode()})
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True))
    ]
    each = -(-count // shards)
    for number in range(shards):
        tar(folder / f"digits-{number:03d}.tar", samples[number * each : (number + 1) * each])
    return folder

"""What a checkpoint file says of itself, told by names, shapes and arguments (METHOD §2).

Nothing here needs PyTorch, whose import takes seconds: what cannot be used is refused before that.
Of the numbers only the thresholds are read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import features, vit_pytorch_keys
from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.backbones.vit.libraries.parts import Part
from ltmp_export.checkpoint import beside, dialects, foreign, heads, scripts
from ltmp_export.checkpoint.containers.elements import FLOATS
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor
from ltmp_export.checkpoint.containers.weights import WHAT, open_weights
from ltmp_export.checkpoint.dialects import Dialect
from ltmp_export.checkpoint.scripts import Script
from ltmp_export.errors import InputError
from ltmp_export.files import disk, memory

KINDS = ("merge", "prune")

_BUFFER = re.compile(r"(?:.*\.)?(?:res)?(blocks|layers)\.(0|[1-9][0-9]{0,5})\.threshold")  # DyMU's
_THRESHOLD = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.(merge|prune)_masker\.threshold")


@dataclass(frozen=True)
class Outline:
    """A file taken apart, its weights not yet read.

    Attributes:
        path: The file.
        arch: The name it gives the model.
        arch_in: Where that name stands in the file.
        others: Other names that it gives in other places.
        args: The training script's arguments, or what stands for them.
        weights: By timm's names; of vit-pytorch's still with the shapes they have there.
        thresholds: By kind, then by block.
        trained: Parameters that its optimizer trained; None where it has no optimizer.
        found: What the file is and what was taken of it, for a person.
        stored: The weights as they stand in the file, by the names they have there.
        prefix: What stands before the model's keys in the file.
        beside: What stands there beside the model, by its names.
        configured: Where those of `args` stand that are not arguments of a script.
        parts: What timm's tensors are made of, where the names are another library's.
        head: The layer that was taken for its classifier, where nobody says which is.
        script: What wrote it, see `dialects.Dialect`.
    """

    path: Path
    arch: str | None
    arch_in: str
    others: tuple[str, ...]
    args: Mapping[str, Any]
    weights: Mapping[str, Shaped]
    thresholds: Mapping[str, Mapping[int, float]]
    trained: int | None
    found: tuple[str, ...]
    stored: Mapping[str, StoredTensor]
    prefix: str
    beside: Mapping[str, Any]
    configured: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    head: str | None = None
    script: Script | None = None

    @property
    def by_timms_names(self) -> bool:
        """Whether names and shapes are timm's before the weights are read."""
        return self.weights is self.stored or bool(self.parts)


def locate(path: Path) -> Path:
    """The checkpoint file: `path` itself, or the one in a Hugging Face folder.

    Raises:
        InputError: A folder without one, or there is nothing.
    """
    if not os.path.isdir(path):  # False for a name that is too long
        disk.require_file(path, WHAT)
        return path
    for name in beside.FILES:
        if (path / name).is_file():
            return path / name
    expected = " or ".join(beside.FILES[:2])
    sharded = sorted(path.glob("*.index.json"))
    if sharded:
        raise InputError(f"{path} holds a model in pieces ({sharded[0].name}); expected {expected}")
    adapters = sorted(path.glob("adapter_*"))
    if adapters:
        raise InputError(f"{path} holds an adapter alone ({adapters[0].name}); {features.MERGE}")
    raise InputError(f"{path} is a directory without {expected}; expected {WHAT}")


def outline(path: Path, use_ema: bool | None = False, head_name: str | None = None) -> Outline:
    """Take a file apart without reading its weights or deciding yet what model it is.

    Args:
        path: The file, or a Hugging Face folder.
        use_ema: See `checkpoint.dialects.understand`.
        head_name: Of its classifier, see `checkpoint.heads.classifier`.

    Raises:
        InputError: It cannot be read, holds something that is no tensor, or more than the memory
            limit; or a threshold is none.
    """
    path = locate(path)
    dialect = dialects.understand(path, open_weights(path), use_ema)
    if not dialect.state:
        raise InputError(f"{path} holds no weights: its state_dict is empty")
    for key, value in dialect.state.items():
        _require_whole(path, key, value)
    _require_memory(path, dialect.state)
    stored, thresholds, script = _sorted_out(path, dialect)
    stored, left = _used(stored)
    taken = foreign.understand(path, stored, dialect.library, dialect.lies)
    model = heads.with_head(path, dialect, stored, taken, head_name)
    foreign.require_none_unknown(path, dialect.library, model.unknown)
    stored = model.stored
    found = [*dialect.found, *left, *taken.found, *model.found, *_described(stored, thresholds)]
    own = {k: v for k, v in dialect.args.items() if v is not None or k not in taken.args}
    weights, args = model.parts or stored, {**taken.args, **own}
    if vit_pytorch_keys.QUERIES in stored and vit_pytorch_keys.is_vit_pytorch(stored):
        if vit_pytorch_keys.has_one_head(stored):
            args = {**args, "num_heads": 1}
        named = vit_pytorch_keys.expected(stored, str(path))
        weights = {named[key][0]: value for key, value in stored.items()}
        found.append("names of vit-pytorch: taken as timm's")
    return Outline(
        path=path,
        arch=dialect.arch,
        arch_in=dialect.arch_in,
        others=dialect.others,
        args=args,
        weights=weights,
        thresholds=thresholds,
        trained=dialect.trained,
        found=tuple(found),
        stored=stored,
        prefix=dialect.prefix,
        beside=dialect.beside,
        configured={
            **dialect.configured,
            **{k: v for k, v in taken.configured.items() if k not in own},
        },
        parts=model.parts,
        head=model.assumed,
        script=script,
    )


def _sorted_out(
    path: Path, dialect: Dialect
) -> tuple[dict[str, StoredTensor], dict[str, dict[int, float]], Script | None]:
    """Weights, thresholds by kind and block, and the script that wrote them.

    Raises:
        InputError: A threshold is none.
    """
    stored: dict[str, StoredTensor] = {}
    thresholds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    bounds: dict[int, float] = {}
    script = dialect.script
    for key, value in dialect.state.items():
        if match := _BUFFER.fullmatch(key):
            bounds[int(match[2])] = _threshold(path, key, value)
            script = scripts.dymu(bounds, pool_sizes=match[1] == "blocks")
        elif match := _THRESHOLD.fullmatch(key):
            thresholds[match[2]][int(match[1])] = _threshold(path, key, value)
        else:
            stored[key] = value
    return stored, thresholds, script


def _used(stored: dict[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """What a model uses of what a file holds, and what was left out, for a person."""
    told = []
    for pattern, why in features.UNUSED.items():
        if keys := [key for key in stored if re.fullmatch(pattern, key)]:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            told.append(f"left out: {keys[0]}{more}, {why}")
            stored = {key: value for key, value in stored.items() if key not in keys}
    unread = chosen.unread(chosen.by_keys(stored))
    if buffers := [key for key in stored if unread.fullmatch(key)]:
        told.append(f"left out: {len(buffers)} buffers ({buffers[0]}, …), which nothing reads")
        stored = {key: value for key, value in stored.items() if key not in buffers}
    return stored, told


def require_floats(own: Outline) -> None:
    """Check that the weights are numbers to compute with.

    Raises:
        InputError: One is not.
    """
    for key, value in own.stored.items():
        _require_float(own.path, key, value)


def _require_whole(path: Path, key: str, value: Any) -> None:
    """A dense tensor that takes the memory it claims."""
    if not isinstance(value, StoredTensor):
        raise InputError(f"{path}: {key} is a {type(value).__name__}; expected a tensor")
    if value.numel * value.dtype.itemsize > value.storage_bytes:
        raise InputError(f"{path}: {key} claims the shape {value.shape} but holds fewer numbers")


def _require_float(path: Path, key: str, value: StoredTensor) -> None:
    if value.dtype not in FLOATS:
        raise InputError(f"{path}: {key} is {value.dtype}; expected a tensor of floats")


def _require_memory(path: Path, state: Mapping[str, StoredTensor]) -> None:
    """Both what is read and what it becomes."""
    read = sum(value.storage_bytes for value in state.values())
    made = sum(value.numel * 4 for value in state.values())
    memory.require_memory(max(read, made), f"{path}: its {len(state)} tensors")


def _threshold(path: Path, key: str, value: StoredTensor) -> float:
    _require_float(path, key, value)
    if value.numel != 1:
        raise InputError(f"{path}: {key} has shape {value.shape}; expected one float")
    try:
        number = value.number()
    except DamagedError as err:
        raise InputError(f"{path} is damaged: {key}: {err}") from err
    if not (math.isfinite(number) and 0.0 <= number <= 1.0):
        raise InputError(f"{path}: {key} is {number}; a threshold lies in [0, 1]")
    return number


def _described(
    stored: Mapping[str, StoredTensor], thresholds: Mapping[str, Mapping[int, float]]
) -> list[str]:
    """What was taken."""
    kinds = sorted({value.dtype.name for value in stored.values()})
    counts = [f"{len(values)} {kind} thresholds" for kind, values in thresholds.items() if values]
    parts = [f"{len(stored)} tensors of {' and '.join(kinds)}"] if stored else ["no weights"]
    words = [", ".join([*parts, *(counts or ["no thresholds"])])]
    if any(kind != "float32" for kind in kinds):
        words.append("computed with as float32")
    return words

"""Which network it is: the one place that knows of all of them.

Each is a folder here, found by name; one without a `KEY` is what some of them share. What is not
told to be another one is taken for a ViT, whose own checks refuse by name what it is not. Nothing
is imported before it is asked for: `build`, `describe` and `eager` bring PyTorch, `lower` ONNX.

What the `geometry` of a folder tells beside its dataclass, whose `kind` is the folder's name:

| | |
|---|---|
| `NAME` | what a person calls it, with an article |
| `CLASSES` | names of timm's classes that may be it |
| `KEY` | names of weights that only it has, a pattern of whole names |
| `FIRST` | the name of its first layer: what stands before it is a file's prefix |
| `UNUSED` | names of buffers in files that nothing reads, a pattern of whole names; or nothing |
| `NAMES` | names of timm's, without tag, that are such networks, a pattern; or nothing |
| `tells(keys)` | whether names of weights tell that together, which none does alone; or nothing |
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from ltmp_export.backbones.vit import kinds
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.vit import Vit

VIT = Vit.kind
_BACKBONES = "ltmp_export.backbones"
_OTHER = "backbone"
FACTS = (_OTHER, VIT)  # keys of a geometry
KEYS = tuple(f"ltmp.{key}" for key in FACTS)  # the same in files


@functools.cache
def others() -> tuple[str, ...]:
    """The kinds beside plain ViTs, sorted."""
    path = importlib.import_module(_BACKBONES).__path__
    folders = sorted(m.name for m in pkgutil.iter_modules(path) if m.ispkg and m.name != VIT)
    return tuple(kind for kind in folders if hasattr(module(kind, "geometry"), "KEY"))


@functools.cache
def vits() -> tuple[str, ...]:
    """The kinds whose geometry is that of a ViT: plain ones, and those that tell more."""
    return (VIT, *(kind for kind in others() if issubclass(_geometry(kind), Vit)))


@functools.cache
def module(kind: str, name: str) -> ModuleType:
    """A module of a backbone's folder."""
    return importlib.import_module(f"{_BACKBONES}.{kind}.{name}")


def name_of(kind: str) -> str:
    """What a person calls it, with an article."""
    return "a plain ViT" if kind == VIT else str(module(kind, "geometry").NAME)


def by_keys(keys: Iterable[str], name: str | None = None) -> str:
    """The kind that names of weights tell, without what stands before them in a file.

    Args:
        keys: The names.
        name: What the model is called, if it is; names of timm's tell where weights do not.
    """
    listed = frozenset(keys)
    own = (name or "").rpartition("/")[2].partition(".")[0]
    for kind in others():
        pattern = getattr(module(kind, "geometry"), "NAMES", "(?!)")
        if re.fullmatch(pattern, own):
            return kind
    for kind in others():
        geometry = module(kind, "geometry")
        pattern, tells = re.compile(geometry.KEY), getattr(geometry, "tells", lambda _: False)
        if any(pattern.fullmatch(key) for key in listed) or tells(listed):
            return kind
    return VIT


def by_class(model: object) -> str:
    """The kind of a model of timm's."""
    named = {parent.__name__ for parent in type(model).__mro__}
    return next((k for k in others() if named & {*module(k, "geometry").CLASSES}), VIT)


def arrays(model: Any) -> dict[str, Any]:
    """What a graph of a model of timm's is made of: its weights, and what follows from them."""
    describe = module(by_class(model), "describe")
    more = describe.arrays(model) if hasattr(describe, "arrays") else {}
    return {**model.state_dict(), **more}


def first_layers() -> tuple[str, ...]:
    """Patterns of the names of their first layers, those of ViTs first."""
    stems = r"patch_embed\.backbone\.(stem\.|0\.)?conv1?"
    found = (
        rf"patch_embed\.proj|{stems}|to_patch_embedding\.1",
        *(_first(kind) for kind in others()),
    )
    return tuple(dict.fromkeys(found))


def _first(kind: str) -> str:
    return str(module(kind, "geometry").FIRST)


def unread(kind: str) -> re.Pattern[str]:
    """Names of buffers in files that nothing reads."""
    pattern = kinds.COUNTER if kind == VIT else getattr(module(kind, "geometry"), "UNUSED", "(?!)")
    return re.compile(pattern)


def to_metadata(geometry: Geometry) -> dict[str, dict[str, Any]]:
    """A geometry as plain values, under the key by which a file has it."""
    return {f"ltmp.{key}": values for key, values in to_facts(geometry).items()}


def from_metadata(words: Mapping[str, Any]) -> Geometry:
    """The inverse, of decoded values.

    Raises:
        LookupError: There is none, or no such network.
        TypeError: It has other values.
        ValueError: A value cannot be what it stands for.
    """
    return from_facts({key.removeprefix("ltmp."): values for key, values in words.items()})


def to_facts(geometry: Geometry) -> dict[str, dict[str, Any]]:
    """A geometry as plain values, under the key by which `ltmp inspect` has it."""
    values = geometry.to_json()
    if geometry.kind == VIT:
        return {VIT: values}
    return {_OTHER: {"kind": geometry.kind, **values}}


def from_facts(facts: Mapping[str, Any]) -> Geometry:
    """The inverse; errors as of `from_metadata`."""
    if _OTHER not in facts:
        return Vit.from_json(facts[VIT])
    values = dict(facts[_OTHER])
    kind = values.pop("kind")
    if kind not in others():
        raise LookupError(f"no network {kind!r}")
    made: Geometry = _geometry(kind).from_json(values)
    return made


def _geometry(kind: str) -> Any:
    """The dataclass of a backbone's geometry."""
    found = module(kind, "geometry")
    return next(
        value
        for value in vars(found).values()
        if isinstance(value, type) and getattr(value, "kind", None) == kind
    )

"""The classifier of a file, where it has another name than the model's other weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.backbones.vit.libraries.parts import Part, same, zeros
from ltmp_export.checkpoint.containers.stored import StoredTensor
from ltmp_export.checkpoint.dialects import Dialect
from ltmp_export.checkpoint.foreign import Foreign
from ltmp_export.errors import InputError

NONE = "none"  # what states that there is none
_NAMED = re.compile(r"(?:.*\.)?(classifier|head|heads|fc|linear|linear_head|cls_head)")
# Layers under such a name; those of DINO's projection are none of a classifier.
_LAYERED = re.compile(
    r"((?:.*\.)?)(?:classifier|head|heads|fc|linear|linear_head|cls_head)"
    r"\.(?!mlp\.|last_layer)[\w.]+\.weight"
)
_OWN = re.compile(r"head(_dist)?\.\w+")
_BESIDE = re.compile(r"(\w+)\.(weight|parametrizations\.weight\.original1)")  # of a single layer
_LONGEST_NAME = 200  # characters


@dataclass(frozen=True)
class Head:
    """A classifier.

    Attributes:
        name: Of its layer in the file.
        keys: Its tensors there, by what they are called in the layer.
        assumed: Whether it was taken because nothing else can be the classifier.
    """

    name: str
    keys: Mapping[str, str]
    assumed: bool


@dataclass(frozen=True)
class Model:
    """A model's weights, its classifier among them.

    Attributes:
        stored: Those that are read, as the file has them.
        parts: timm's tensors; empty where all names are timm's.
        assumed: The layer that was taken for its classifier, where nobody says which is.
        found: What was taken, for a person.
        unknown: Names in the file that are none of the library's.
    """

    stored: dict[str, StoredTensor]
    parts: Mapping[str, Part]
    assumed: str | None = None
    found: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def with_head(
    path: Path,
    dialect: Dialect,
    stored: dict[str, StoredTensor],
    taken: Foreign,
    asked: str | None,
) -> Model:
    """The weights of a file, with the classifier that stands elsewhere.

    Args:
        path: The file.
        dialect: What it is.
        stored: By the names there, without what stands before the whole model.
        taken: Of another library's names.
        asked: See `classifier`.

    Raises:
        InputError: As of `classifier`.
    """
    used = _used(taken.parts)
    own = {key: value for key, value in stored.items() if not taken.parts or key in used}
    weights: Mapping[str, Shaped] = taken.parts or stored
    patch = weights.get("patch_embed.proj.weight")
    if patch is None or len(patch.shape) != 4:
        return Model(own, taken.parts, unknown=taken.unknown)
    if "head.weight" in weights and asked in (None, NONE):
        if asked == NONE:
            return _without(own, taken)
        _require_no_other(path, dialect)
        return Model(own, taken.parts, unknown=taken.unknown)
    inside = {key: stored[key] for key in (taken.unknown if taken.parts else stored)}
    rest = {f"{dialect.prefix}{key}": value for key, value in inside.items()} | {**dialect.beside}
    head = classifier(path, rest, dialect.prefix, patch.shape[0], asked)
    if head is None:
        left = None if asked == NONE or taken.parts else _perhaps(dialect, patch.shape[0])
        hint = () if left is None else (f"{left} may be its classifier: --head-name",)
        return Model(own, taken.parts, left and NONE, hint, taken.unknown)
    names = {leaf: key.removeprefix(dialect.prefix) for leaf, key in head.keys.items()}
    names = {leaf: name if name in inside else head.keys[leaf] for leaf, name in names.items()}
    own |= {names[leaf]: rest[key] for leaf, key in head.keys.items()}
    parts = {**taken.parts} or {k: same(own, k) for k in own if k not in names.values()}
    parts["head.bias"] = zeros(rest[head.keys["weight"]].shape[0])
    parts |= {f"head.{leaf}": same(own, name) for leaf, name in names.items()}
    unknown = tuple(key for key in taken.unknown if key not in names.values())
    told = f"its classifier is {head.name}"
    return Model(own, parts, head.name if head.assumed else None, (told,), unknown)


def _without(own: dict[str, StoredTensor], taken: Foreign) -> Model:
    """The same without a classifier of timm's name."""
    parts = {name: part for name, part in taken.parts.items() if not _OWN.fullmatch(name)}
    used = _used(parts)
    kept = {k: v for k, v in own.items() if (k in used if parts else not _OWN.fullmatch(k))}
    return Model(kept, parts, unknown=taken.unknown)


def _require_no_other(path: Path, dialect: Dialect) -> None:
    """Refuse to choose between a model's own classifier and one beside it.

    That of another model, averaged or not, is none.

    Raises:
        InputError: There is one.
    """
    able = _candidates(dialect.beside, dialect.prefix)
    if others := [name for name in able if not _of_another(dialect, name)]:
        raise InputError(
            f"{path}: {' and '.join((f'{dialect.prefix}head', *others))} may be its classifier; "
            f"state which: --head-name {'|'.join(('head', *others, NONE))}"
        )


def _of_another(dialect: Dialect, name: str) -> bool:
    """Whether blocks stand beside a layer."""
    outer = name.rpartition(".")[0]
    blocks = f"{outer}.blocks." if outer else "blocks."
    return any(key.startswith(blocks) for key in dialect.beside)


def _perhaps(dialect: Dialect, width: int) -> str | None:
    """A layer beside a model that takes what it gives, though it has no classifier's name."""
    for key, value in dialect.beside.items():
        match = _BESIDE.fullmatch(key) if len(key) <= _LONGEST_NAME else None
        if match and tuple(value.shape[1:]) == (width,):
            return match[1]
    return None


def _used(parts: Mapping[str, Part]) -> frozenset[str]:
    return frozenset(key for part in parts.values() for key in part.keys)


def classifier(
    path: Path, values: Mapping[str, Shaped], prefix: str, width: int | None, asked: str | None
) -> Head | None:
    """The classifier that is asked for, or else the only layer that can be one.

    Args:
        path: The file.
        values: All that it holds and the model does not have.
        prefix: What stands before the model's names.
        width: C.
        asked: The layer's name, `NONE`, or None where nobody says it.

    Raises:
        InputError: There is no such layer, several can be the classifier, or one takes something
            else than the model gives.
    """
    if asked == NONE:
        return None
    able = list(_candidates(values, prefix))
    if asked is None:
        if len(able) > 1:
            raise InputError(
                f"{path}: {' and '.join(able)} may be its classifier; state which: --head-name "
                f"{'|'.join((*able, NONE))}"
            )
        if not able:
            _require_no_layers(path, values, prefix, width)
            return None
    name = (
        next((n for n in (asked, f"{prefix}{asked}") if f"{n}.weight" in values), None)
        if asked is not None
        else able[0]
    )
    if name is None:
        known = f"; {', '.join(able)} may be it" if able else ""
        raise InputError(f"{path}: --head-name {asked}: it holds no {asked}.weight{known}")
    if asked is not None:
        _require_single(path, values, prefix, name)
    shape = tuple(values[f"{name}.weight"].shape)
    if len(shape) != 2:
        raise InputError(
            f"{path}: {name}.weight {list(shape)} is no linear layer's; --head-name {NONE} leaves "
            "it out"
        )
    if width is not None and shape[1] not in (width, 2 * width):
        raise InputError(
            f"{path}: {name}.weight {list(shape)} takes other numbers than the {width} that the "
            f"model gives; --head-name {NONE} leaves it out"
        )
    leaves = (leaf for leaf in ("weight", "bias") if f"{name}.{leaf}" in values)
    return Head(name, {leaf: f"{name}.{leaf}" for leaf in leaves}, asked is None)


def _require_single(path: Path, values: Mapping[str, Shaped], prefix: str, name: str) -> None:
    """Refuse a layer among others that stand before or behind it.

    Others of names, not numbers, that take as many numbers are another task's.

    Raises:
        InputError: It is one.
    """
    outer, _, leaf = name.rpartition(".")
    if f"{outer}." in _places(prefix) or not outer:
        return
    takes = tuple(values[f"{name}.weight"].shape[1:])
    for key, value in values.items():
        if not key.startswith(f"{outer}.") or key.startswith(f"{name}.") or not value.shape:
            continue
        task = (len(value.shape) == 2 and tuple(value.shape[1:]) == takes) or key.endswith(".bias")
        if leaf.isdecimal() or not task:
            raise InputError(
                f"{path}: {name} is one of several layers ({key} {list(value.shape)}), expected a "
                f"classifier of a single one; --head-name {NONE} leaves it out"
            )


def _require_no_layers(
    path: Path, values: Mapping[str, Shaped], prefix: str, width: int | None
) -> None:
    """Refuse a classifier of several layers: to leave it out has to be said.

    Raises:
        InputError: There is one.
    """
    for key, value in values.items():
        match = _LAYERED.fullmatch(key) if len(key) <= _LONGEST_NAME else None
        if match and match[1] in _places(prefix) and tuple(value.shape[1:]) == (width,):
            raise InputError(
                f"{path}: {key} {list(value.shape)} is of a classifier of several layers, expected "
                f"a single one; --head-name {NONE} leaves it out"
            )


def _places(prefix: str) -> set[str]:
    """Where a classifier may be: beside the model, or in it."""
    found = {"", prefix}
    while prefix:
        prefix = prefix.rstrip(".").rpartition(".")[0]
        prefix += "." if prefix else ""
        found.add(prefix)
    return found


def _candidates(values: Mapping[str, Shaped], prefix: str) -> Iterator[str]:
    """Single linear layers with a classifier's name, beside the model or in it."""
    places = _places(prefix)
    for key, value in values.items():
        name = key.removesuffix(".weight")
        if name == key or len(key) > _LONGEST_NAME or not (match := _NAMED.fullmatch(name)):
            continue
        place = name.removesuffix(match[1])
        alone = all(
            k in (f"{name}.weight", f"{name}.bias") for k in values if k.startswith(f"{name}.")
        )
        if place in places and alone and len(value.shape) == 2:
            yield name

"""A model under another library's names, made one under timm's: what stands where is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip
from ltmp_export.backbones.vit.libraries.index import libraries
from ltmp_export.backbones.vit.libraries.parts import Part, Weights
from ltmp_export.checkpoint import processor
from ltmp_export.checkpoint.beside import Beside
from ltmp_export.errors import InputError


@dataclass(frozen=True)
class Foreign:
    """What another library's names, and configurations beside a file, tell.

    Attributes:
        parts: By timm's names; empty where the names are timm's.
        args: In timm's words.
        configured: Where each of them stands.
        found: For a person.
        unknown: Names in the file that are none of the library's.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    configured: Mapping[str, str] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def understand(path: Path, stored: Weights, library: ModuleType | None, lies: Beside) -> Foreign:
    """The model in a file, if its names are another library's.

    Args:
        path: The file.
        stored: By the names there, without what stands before the whole model.
        library: Whose names they are, None for timm's.
        lies: What lies beside the file.

    Raises:
        InputError: It is a model that is not covered; it is named.
    """
    if library is None:
        _require_known(path, stored, lies)
        return _with(Foreign(), processor.words(lies) if lies.belongs else {})
    if library.NAME == open_clip.NAME:
        lies = replace(lies, config=lies.open_clip)
    kind = lies.config.get("model_type")
    types = getattr(library, "TYPES", ())
    if kind not in types and (kind is not None or (types and not lies.belongs)):
        if lies.belongs:
            raise InputError(_not_covered(path, lies))
        lies = replace(lies, config={}, processor={})
    taken = library.take(stored, lies.config, str(path))
    notes = (f"names of {library.NAME}: taken as timm's", *taken.found)
    if lies.config:
        notes = (f"{lies.name or library.NAME}, by the configuration beside it", *notes)
    found = Foreign(taken.parts, found=notes, unknown=taken.unknown)
    return _with(_with(found, processor.words(lies)), taken.words)


def require_none_unknown(path: Path, library: ModuleType | None, unknown: Sequence[str]) -> None:
    """Check that all names in a file are its library's.

    Raises:
        InputError: Some are not: it is another model, or more than a plain ViT.
    """
    if library is not None and unknown:
        raise InputError(
            f"{path}: it looks like {library.NAME}, with what is not supported: "
            f"{', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}; expected a plain one"
        )


def _with(foreign: Foreign, words: Mapping[str, Any]) -> Foreign:
    """More words; later ones go first."""
    values = {key: one.value for key, one in words.items()}
    places = {key: one.where for key, one in words.items()}
    return replace(
        foreign,
        args={**foreign.args, **values},
        configured={**foreign.configured, **places},
    )


def _require_known(path: Path, stored: Weights, lies: Beside) -> None:
    """Refuse by name what the configuration of a folder says is another model.

    Raises:
        InputError: It is one of transformers, and neither it nor its names are known.
    """
    timms = any(key.startswith("patch_embed.") for key in stored)
    if lies.belongs and lies.name and not lies.of_timm and stored and not timms:
        raise InputError(_not_covered(path, lies))


def _not_covered(path: Path, lies: Beside) -> str:
    types = (kind for library in libraries() for kind in getattr(library, "TYPES", ()))
    return (
        f"{path}: this is Hugging Face's {lies.name:.80}, which is not covered; expected a model "
        f"whose config.json has the model_type {', '.join(types)}"
    )

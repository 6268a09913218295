"""What a model file gives of its images: names, shapes, and what can be asked of a model.

Shapes: B images, K tokens, P protected rows, C channels.

| | |
|---|---|
| `logits` | [B, classes], of a model with a classifier |
| `features` | [B, C], what a classifier sees: timm's `forward_head(x, pre_logits=True)` |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ltmp_export.errors import InputError

if TYPE_CHECKING:
    from ltmp_export.plan.geometry import Geometry

LOGITS, FEATURES = "logits", "features"
KNOWN = (LOGITS, FEATURES)  # in the order in which files have them
_ANSWERS = (LOGITS, FEATURES)  # one row of numbers for each image


def default(geometry: Geometry) -> tuple[str, ...]:
    """What a file gives where nothing is asked for: what timm's model gives."""
    return (LOGITS,) if geometry.classes else (FEATURES,)


def answer(names: Iterable[str]) -> str | None:
    """The output that says most of an image in one row of numbers, or None."""
    found = set(names)
    return next((name for name in _ANSWERS if name in found), None)


def require(names: Sequence[str] | None, geometry: Geometry, source: object) -> tuple[str, ...]:
    """What a file is to give, in the order in which it gives it.

    Args:
        names: What is asked for; None for the `default`.
        geometry: Of the model.
        source: Where it is from, for messages.

    Raises:
        InputError: There is no such output, or this model does not give it.
    """
    if names is None:
        return default(geometry)
    asked = [name.strip() for name in names]
    known = ", ".join(KNOWN)
    if not asked or (unknown := [name for name in asked if name not in KNOWN]):
        told = f"no output {unknown[0]!r}" if asked else "no output is named"
        raise InputError(f"--outputs {','.join(asked)}: {told}; choose from {known}")
    if len(set(asked)) < len(asked):
        twice = next(name for name in asked if asked.count(name) > 1)
        raise InputError(f"--outputs {','.join(asked)}: {twice} is there twice")
    for name in asked:
        if name == LOGITS and not geometry.classes:
            raise InputError(
                f"{source} has no classifier, and gives no logits; choose from "
                f"{', '.join(geometry.outputs)} with --outputs"
            )
        if name not in geometry.outputs:
            raise InputError(
                f"--outputs {name}: not of {geometry.name}, of kind {geometry.kind}, which gives "
                f"{', '.join(geometry.outputs)}"
            )
    return tuple(name for name in KNOWN if name in asked)

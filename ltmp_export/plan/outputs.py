"""What a model file gives of its images: names, shapes, and what can be asked of a model.

Shapes: B images, K tokens that are left of that image which has most, C channels.

| | |
|---|---|
| `logits` | [B, classes], of a model with a classifier |
| `features` | [B, C], what a classifier sees: timm's `forward_head(x, pre_logits=True)` |
| `tokens` | [B, K, C], the tokens that are left, protected rows first, after the final norm; the |
| | rest is 0 |
| `sizes` | [B, K] float32, patches that each stands for, or owns if attention does not weigh by |
| | them; 1 of protected rows, 0 where none is |
| `token_map` | [B, patches] int64, for each patch in row-major order the index in `tokens` of the |
| | one that it is part of, -1 if it was pruned |
| `dense` | [B, C, h, w], those tokens on the grid of patches; of a pruned patch the vector that |
| | owned it when that was decided, after the final norm |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ltmp_export.errors import InputError

if TYPE_CHECKING:
    from ltmp_export.plan.geometry import Geometry
    from ltmp_export.plan.plan import Plan

LOGITS, FEATURES = "logits", "features"
TOKENS, SIZES, TOKEN_MAP, DENSE = "tokens", "sizes", "token_map", "dense"
KNOWN = (LOGITS, FEATURES, TOKENS, SIZES, TOKEN_MAP, DENSE)  # in the order in which files have them
OWNERS = (SIZES, TOKEN_MAP, DENSE)  # say what became of each patch
_ANSWERS = (LOGITS, FEATURES)  # one row of numbers for each image


def default(geometry: Geometry) -> tuple[str, ...]:
    """What a file gives where nothing is asked for: what timm's model gives."""
    return (LOGITS,) if geometry.classes else (FEATURES,)


def answer(names: Iterable[str]) -> str | None:
    """The output that says most of an image in one row of numbers, or None."""
    found = set(names)
    return next((name for name in _ANSWERS if name in found), None)


def of(geometry: Geometry, plan: Plan) -> tuple[str, ...]:
    """All that a model can give under a plan."""
    unknown = OWNERS if plan.mixes else ()
    return tuple(name for name in KNOWN if name in geometry.outputs and name not in unknown)


def require_known(names: Sequence[str]) -> list[str]:
    """The same names without blanks around them.

    Raises:
        InputError: One is no output's, or there twice.
    """
    asked = [name.strip() for name in names]
    known = ", ".join(KNOWN)
    if not asked or (unknown := [name for name in asked if name not in KNOWN]):
        told = f"no output {unknown[0]!r}" if asked else "no output is named"
        raise InputError(f"--outputs {','.join(asked)}: {told}; choose from {known}")
    if len(set(asked)) < len(asked):
        twice = next(name for name in asked if asked.count(name) > 1)
        raise InputError(f"--outputs {','.join(asked)}: {twice} is there twice")
    return asked


def require(
    names: Sequence[str] | None, geometry: Geometry, plan: Plan, source: object
) -> tuple[str, ...]:
    """What a file is to give, in the order in which it gives it.

    Args:
        names: What is asked for; None for the `default`.
        geometry: Of the model.
        plan: What happens to its tokens.
        source: Where it is from, for messages.

    Raises:
        InputError: There is no such output, or this model does not give it.
    """
    if names is None:
        return (TOKENS,) if plan.ends else default(geometry)
    asked = require_known(names)
    able = of(geometry, plan)
    for name in asked:
        if name in able:
            continue
        why = f"{source}, of kind {geometry.kind}, does not give {name}"
        if name == LOGITS:
            why = f"{source} has no classifier, and gives no logits"
        elif name in geometry.outputs:
            why = f"family {plan.family} mixes patches, of which no token then owns one: no {name}"
        raise InputError(f"{why}; choose from {', '.join(able)} with --outputs")
    return tuple(name for name in KNOWN if name in asked)

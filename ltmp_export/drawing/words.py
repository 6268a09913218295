"""What a picture of tokens shows in words: captions, legend, a text for who does not see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltmp_export.drawing.owned import Owned

LEGEND = (
    "Each region has the mean colour of the patches of its token. Outlined in colour: tokens of "
    "several patches; thick where this block merged them, a faint line connects the pieces of one. "
    "Grey and hatched: pruned patches, with bright lines where this block pruned them."
)


def caption(owned: Owned) -> tuple[str, str]:
    """Two short lines under a picture."""
    return f"block {owned.block}: {tokens(owned)}", f"{merged(owned)}, {pruned(owned)}"


def tokens(owned: Owned) -> str:
    """How many are left."""
    return _number(owned.tokens, "token")


def merged(owned: Owned) -> str:
    """Tokens of several patches."""
    return f"{merged_tokens(owned)} merged"


def pruned(owned: Owned) -> str:
    """Patches that are gone."""
    return f"{_number(int((~owned.living).sum()), 'patch', 'patches')} pruned"


def merged_tokens(owned: Owned) -> int:
    """Tokens that own more than one patch."""
    return len(np.unique(owned.places[owned.several]))


def alternative(name: str, model: str, blocks: Sequence[Owned]) -> str:
    """A picture's strip for who does not see it.

    Args:
        name: Of the picture.
        model: What it went through.
        blocks: Those shown, at least one.
    """
    patches = len(blocks[0].places)
    parts = [f"{name} through {model}, {patches} patches."]
    for owned in blocks:
        largest = int(owned.sizes.max(initial=0))
        detail = f", the largest of {largest} patches" if largest > 1 else ""
        parts.append(
            f"Behind block {owned.block}: {tokens(owned)}, {merged(owned)}{detail}; "
            f"{pruned(owned)}."
        )
    return " ".join(parts)


def _number(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"

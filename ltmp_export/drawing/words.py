"""What a picture of tokens shows in words: captions, legend, a text for who does not see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ltmp_export.drawing.colours import NAMES
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
    return f"{_patches(int((~owned.living).sum()))} pruned"


def here(owned: Owned) -> str:
    """What this very block did, in a sentence."""
    done, merged_here = [], owned.merged_here
    if merged_here.any():
        parts = len(np.unique(owned.before[merged_here]))
        whole = len(np.unique(owned.places[merged_here]))
        done.append(f"merged {parts} tokens into {whole}")
    if owned.pruned_here.any():
        patches = int(owned.pruned_here.sum())
        gone = len(np.unique(owned.before[owned.pruned_here]))
        of_tokens = "" if gone == patches else f" in {_number(gone, 'token')}"
        done.append(f"pruned {_patches(patches)}{of_tokens}")
    return f"This block {' and '.join(done) or 'merged and pruned nothing'}."


def so_far(owned: Owned) -> str:
    """What this block and those before it did, in a sentence."""
    return f"So far: {_number(merged_tokens(owned), 'token')} of several patches, {pruned(owned)}."


def merges(owned: Owned, hues: NDArray[np.int64]) -> Iterator[str]:
    """Of each token that this very block made of several: its colour, and their patches.

    Args:
        owned: The patches behind the block.
        hues: [P] their colours, as `colours.of` gives them.
    """
    for token in np.unique(owned.places[owned.merged_here]):
        own = np.flatnonzero(owned.places == token)
        parts = [own[owned.before[own] == part] for part in dict.fromkeys(owned.before[own])]
        told = " with ".join(where(part, owned.grid) for part in parts)
        yield f"{NAMES[hues[own[0]]]}: {told}"


def where(patches: NDArray[np.int64], grid: tuple[int, int]) -> str:
    """Some patches, of increasing numbers, by row and columns from 1."""
    rows, columns = np.divmod(patches, grid[1])
    return ", ".join(
        f"row {row + 1} column{'s' if sum(rows == row) > 1 else ''} {_spans(columns[rows == row])}"
        for row in dict.fromkeys(rows.tolist())
    )


def _spans(columns: NDArray[np.int64]) -> str:
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(columns)) if b > a + 1), len(columns)]
    spans = ((columns[a] + 1, columns[b - 1] + 1) for a, b in pairwise(starts))
    return " and ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)


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


def _patches(count: int) -> str:
    return _number(count, "patch", "patches")


def _number(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"

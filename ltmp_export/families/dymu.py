"""Merge similar tokens by thresholds learned per block, no more than half of them (DyMU).

Wang et al., "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs", 2025, arXiv
2504.17040, one image at a time, as MikeWangWZHL/dymu at c57d75a has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping

from ltmp_export.errors import InputError
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.merge_some.step import MergeSome

BACKBONES = (Vit.kind,)
VARIES = True
STATED = ("thresholds", "pool_sizes")

_NEVER = 1.0  # of a block that merges nothing, which is also where all begin


def from_stated(
    source: str,
    vit: Vit,
    *,
    thresholds: Mapping[int, float] | None = None,
    pool_sizes: bool | None = None,
) -> Placed:
    """A step for each block with a threshold below 1, which no similarity is above.

    Args:
        source: The file, for messages.
        vit: Geometry.
        thresholds: By block, which files of its code alone hold.
        pool_sizes: Whether attention pooling knows of sizes, likewise.

    Raises:
        InputError: They are missing, or of another model.
    """
    if thresholds is None or pool_sizes is None:
        raise InputError(
            f"{source} holds no thresholds of DyMU (a buffer 'threshold' in each block); give a "
            "checkpoint as its code saves it"
        )
    if vit.prefix > 1 or vit.pool not in ("token", "map"):
        raise InputError(
            f"{source}: DyMU's code is of models with a class token, or attention pooling; this "
            f"one has {vit.prefix} tokens before the patches, pooled by {vit.pool}"
        )
    if sorted(thresholds) != list(range(vit.depth)):
        missing = sorted(set(range(vit.depth)) - thresholds.keys())
        what = f"missing in blocks {missing}" if missing else f"of {len(thresholds)} blocks"
        raise InputError(f"{source}: thresholds {what}; the model has {vit.depth} blocks")
    blocks: dict[int, tuple[Step, ...]] = {
        block: (MergeSome(bound, ranked=not vit.prefix),)
        for block, bound in sorted(thresholds.items())
        if bound < _NEVER
    }
    doubts = () if blocks else ("all thresholds are 1, where they begin: never learned",)
    told = f"{len(blocks)} of {vit.depth} blocks merge, by thresholds of their own"
    return Placed(blocks, found=(told,), warnings=doubts, pool_sizes=pool_sizes)

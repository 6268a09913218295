"""Keep the tokens that the class token attends to most, drop the rest, at a few blocks (Top-K).

The baseline of Haurum et al., "Which Tokens to Use? Investigating Token Reduction in Vision
Transformers", ICCV workshops 2023, arXiv 2308.04657, also in TokenReductionPT; METHOD §1.
"""

from __future__ import annotations

from ltmp_export.plan.kept import Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.fuse import places

CLASS_TOKEN = True
STATED = ("keep_rate", "merge_at", "keep_rule", "trained_by", "reduction_target")


def from_stated(
    source: str,
    vit: Vit,
    *,
    keep_rate: Rates | None,
    merge_at: tuple[int, ...] | None,
    keep_rule: str | None,
    trained_by: str | None = None,
    reduction_target: float | None = None,
) -> Placed:
    """The steps of the blocks that take one, see `places.placed`.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    return places.placed(
        source, vit, keep_rate=keep_rate, merge_at=merge_at, keep_rule=keep_rule, fused=False,
        trained_by=trained_by, reduction_target=reduction_target,
    )  # fmt: skip

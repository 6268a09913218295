"""Keep the tokens that the class token attends to, fuse the rest, at a few blocks (EViT).

Liang et al., "Not All Patches are What You Need: Expediting Vision Transformers via Token
Reorganizations", ICLR 2022, arXiv 2202.07800, as its official script, the TokenReduction zoo and
TokenReductionPT have it; METHOD §1.
"""

from __future__ import annotations

from ltmp_export.plan.kept import Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.fuse import places

CLASS_TOKEN = True
STATED = ("keep_rate", "merge_at", "keep_rule", "fuse_token", "trained_by", "reduction_target")


def from_stated(
    source: str,
    vit: Vit,
    *,
    keep_rate: Rates | None,
    merge_at: tuple[int, ...] | None,
    keep_rule: str | None,
    fuse_token: bool | None,
    trained_by: str | None = None,
    reduction_target: float | None = None,
) -> Placed:
    """The steps of the blocks that take one, see `places.placed`; the others are fused unless not.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    fused = fuse_token is not False
    return places.placed(
        source, vit, keep_rate=keep_rate, merge_at=merge_at, keep_rule=keep_rule, fused=fused,
        trained_by=trained_by, reduction_target=reduction_target,
    )  # fmt: skip

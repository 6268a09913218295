"""Merge the r most similar tokens of each block (ToMe).

Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461; METHOD §1.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge_most.step import MergeMost

COUNTS = ("merge",)


def block_steps(merge: int) -> tuple[Step, ...]:
    """Importance is never needed; unmerged tokens keep their order."""
    return (MergeMost(merge),)


def unprotected_steps(merge: int) -> tuple[Step, ...]:
    """Without a class token ToMe leaves the unmerged in order of descending similarity."""
    return (MergeMost(merge, ranked=True),)

"""Merge the most similar tokens of each block, then prune the least important ones.

A fixed-rate baseline of LTMP (arXiv 2307.10780); METHOD §1. Pruning takes more of r block by block.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast

COUNTS = ("merge", "prune")


def block_steps(merge: int, prune: int) -> tuple[Step, ...]:
    """Merged destinations carry the largest importance of their parts into the pruning."""
    return MergeMost(merge, ranked=True), PruneLeast(prune)

"""Prune the least important tokens of each block, then merge the most similar of the others.

A fixed-rate baseline of LTMP (arXiv 2307.10780); METHOD §1. Pruning takes more of r block by block.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast

COUNTS = ("merge", "prune")


def block_steps(merge: int, prune: int) -> tuple[Step, ...]:
    """The even/odd split of the merging runs over the tokens in order of importance."""
    return PruneLeast(prune), MergeMost(merge)

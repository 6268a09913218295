"""Prune the r least important tokens of each block.

The pruning of the fixed-rate baselines of LTMP (arXiv 2307.10780); METHOD §1. Token sizes stay 1,
attention is plain.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.prune_least.step import PruneLeast

COUNTS = ("prune",)


def block_steps(prune: int) -> tuple[Step, ...]:
    """No step reads the order the tokens are in; none ever stands for more than one patch."""
    return (PruneLeast(prune, ordered=False),)

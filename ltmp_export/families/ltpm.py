"""Prune, then merge what is left, by thresholds learned per block.

The variant of LTMP with its two steps exchanged (arXiv 2307.10780); METHOD §1.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune

START = {"merge": 1.0, "prune": 0.0}


def block_steps(merge: float, prune: float) -> tuple[Step, ...]:
    """The even/odd split of the merging runs over the tokens the pruning kept."""
    return Prune(prune), Merge(merge)

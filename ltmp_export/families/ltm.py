"""Merging only, by thresholds learned per block.

The merging half of LTMP (arXiv 2307.10780); METHOD §1. Not the paper "LTM-Transformer".
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge.step import Merge

START = {"merge": 1.0}


def block_steps(merge: float) -> tuple[Step, ...]:
    """Importance is never needed."""
    return (Merge(merge),)

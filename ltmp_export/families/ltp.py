"""Pruning only, by thresholds learned per block.

The pruning half of LTMP (arXiv 2307.10780); METHOD §1. Token sizes stay 1, attention is plain.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.prune.step import Prune

START = {"prune": 0.0}


def block_steps(prune: float) -> tuple[Step, ...]:
    """No token ever stands for more than one patch."""
    return (Prune(prune),)

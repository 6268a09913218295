"""Merge, then prune, by thresholds learned per block (LTMP).

Bonnaerens & Dambre, "Learned Thresholds Token Merging and Pruning for Vision Transformers",
TMLR 2023, arXiv 2307.10780; METHOD §1.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune

START = {"merge": 0.9, "prune": 0.0}


def block_steps(merge: float, prune: float) -> tuple[Step, ...]:
    """Merged destinations carry the largest importance of their parts into the pruning."""
    return Merge(merge), Prune(prune)

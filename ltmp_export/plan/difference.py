"""What no weight tells of differential attention (arXiv 2410.05258), as timm has it."""

from __future__ import annotations

import math

NORM_EPS = 1e-5  # of the norm behind each head, whatever that of the others is


def start(block: int) -> float:
    """λ of a block before training."""
    return 0.8 - 0.6 * math.exp(-0.3 * block)

"""EViT (Liang et al. 2022, arXiv 2202.07800) in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Letters: N tokens, P of them
protected in front, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tests.oracles.oracle import OracleResult, _classify, _embed, _Weights, protected
from tests.oracles.oracle_mergence import class_attention
from tests.oracles.oracle_static import _check_read, _depth, _mlp, _positive


def reduced(
    x: np.ndarray, score: Sequence[float], rate: float, fused: bool, front: int = 1
) -> tuple[np.ndarray, float]:
    """One reduction, token by token: x [N, C], score [N] → rows that are left, and the margin.

    The margin is the smallest gap, above zero, between neighbours in the order of scores, down to
    the first token that does not stay.
    """
    number = math.ceil(rate * (len(x) - front))
    places = sorted(range(front, len(x)), key=lambda place: (-score[place], place))
    rows = [*x[:front], *(x[place] for place in places[:number])]
    if fused:
        rows.append(np.asarray(sum(score[place] * x[place] for place in places[number:])))
    ranked = [score[place] for place in places[: number + 1]]
    return np.stack(rows), _positive(a - b for a, b in pairwise(ranked))


def run_evit(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    keep_rate: float,
    blocks: Sequence[int],
    fused: bool,
    eps: float = 1e-6,
    activation: str = "gelu",
) -> OracleResult:
    """One image [channels, height, width] through a ViT of timm's names that has a class token.

    Raises what `oracle.run` does.
    """
    w = _Weights(weights, eps)
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    counts, margin = [], math.inf
    for index in range(_depth(w)):
        block = f"blocks.{index}"
        update, score = class_attention(w, block, x, heads)
        x = x + update
        if index in blocks:
            x, near = reduced(x, score, keep_rate, fused, front)
            margin = min(margin, near)
        counts.append(len(x))
        x = _mlp(w, block, x, activation)
    logits = _classify(w, x, np.ones(len(x)), "token")
    _check_read(w)
    return OracleResult(logits, tuple(counts), margin)

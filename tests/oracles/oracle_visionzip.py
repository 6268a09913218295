"""VisionZip in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.oracle import _embed, _Weights
from tests.oracles.oracle_diffrate import attended, fed


def run_visionzip(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    dominant: int,
    contextual: int,
    eps: float = 1e-5,
    activation: str = "quick_gelu",
) -> tuple[np.ndarray, list[int]]:
    """Tokens that are left of one image, and for each patch the row that it is part of.

    Args:
        weights: Of a ViT with a class token by timm's names, the last block among them.
        image: [channels, height, width].
        heads: Of attention.
        dominant: Tokens that stay, the class token among them.
        contextual: Tokens that the others become.
        eps: Of the norms.
        activation: Of the MLPs.
    """
    w = _Weights(weights, eps)
    x = _embed(w, np.asarray(image, dtype=np.float64))
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    shares, keys = np.zeros(len(x)), np.zeros((len(x), 1))
    for index in range(depth - 1):
        x, shares, keys = attended(w, f"blocks.{index}", x, np.ones(len(x)), heads)
        x = fed(w, f"blocks.{index}", x, activation)
    ranked = sorted(range(1, len(x)), key=lambda row: (-shares[row], row))
    stays = [0, *sorted(ranked[: dominant - 1])]
    rest = [row for row in range(len(x)) if row not in stays]
    step = max(1, len(rest) // contextual)
    targets = rest[::step][:contextual]
    came: dict[int, list[int]] = {row: [] for row in targets}
    for row in rest:
        if row not in came:
            best = [_cosine(keys[row], keys[to]) for to in targets]
            came[targets[best.index(max(best))]].append(row)
    made = [x[to] + (x[rows].mean(axis=0) if rows else 0.0) for to, rows in came.items()]
    groups = [[row] for row in stays] + [[to, *rows] for to, rows in came.items()]
    owner = [next(r for r, own in enumerate(groups) if p in own) for p in range(1, len(x))]
    return np.array([*x[stays], *made]), owner


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))

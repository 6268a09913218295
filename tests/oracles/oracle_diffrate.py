"""DiffRate in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Among equal scores the lower
position comes first. Letters: N tokens, C channels, H heads, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracles.oracle import _ACTIVATIONS, _classify, _embed, _Weights


@dataclass(frozen=True)
class DiffRateResult:
    """What one image gives.

    Attributes:
        logits: [classes] float64.
        counts: Tokens after each block.
        sizes: [N] at the end.
        owner: For each patch the row that holds it at the end, -1 where it was pruned.
    """

    logits: np.ndarray
    counts: tuple[int, ...]
    sizes: np.ndarray
    owner: list[int]


def attended(
    w: _Weights, block: str, x: np.ndarray, size: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Behind attention [N, C]; what the class token gives each [N]; keys, their mean over heads."""
    n, channels = x.shape
    qkv = w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", x))
    q, k, v = qkv.reshape(n, 3, heads, channels // heads).transpose(1, 2, 0, 3)  # [H, N, D]
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(channels // heads) + np.log(size)
    e = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares = e / e.sum(axis=2, keepdims=True)  # [H, N, N]
    mixed = (shares @ v).transpose(1, 0, 2).reshape(n, channels)
    return x + w.linear(f"{block}.attn.proj", mixed), shares[:, 0].mean(axis=0), k.mean(axis=0)


def fed(w: _Weights, block: str, x: np.ndarray, activation: str = "gelu") -> np.ndarray:
    """Behind the MLP of a block."""
    hidden = w.linear(f"{block}.mlp.fc1", w.norm(f"{block}.norm2", x))
    return np.asarray(x + w.linear(f"{block}.mlp.fc2", _ACTIVATIONS[activation](hidden)))


def run_diffrate(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    prune: Sequence[int],
    merge: Sequence[int],
    pool: str = "token",
) -> DiffRateResult:
    """One image [channels, height, width] through a ViT of timm's names with a class token."""
    w = _Weights(weights, 1e-6)
    x = _embed(w, np.asarray(image, dtype=np.float64))
    size, held = np.ones(len(x)), [[row - 1] for row in range(len(x))]
    counts = []
    for index, (most, into) in enumerate(zip(prune, merge, strict=True)):
        block = f"blocks.{index}"
        x, shares, _ = attended(w, block, x, size, heads)
        order = [0, *sorted(range(1, len(x)), key=lambda row: (-shares[row], row))][:most]
        x, size, held = x[order], size[order], [held[row] for row in order]
        if into < most and into < len(x):
            x, size, held = _absorbed(x, size, held, into)
        counts.append(len(x))
        x = fed(w, block, x)
    logits = _classify(w, x, size, pool)
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")
    owner = [next((r for r, own in enumerate(held) if p in own), -1) for p in range(order_of(w))]
    return DiffRateResult(logits, tuple(counts), size, owner)


def order_of(w: _Weights) -> int:
    """How many patches there are."""
    return int(w.arrays["pos_embed"].shape[1]) - 1


def _absorbed(
    x: np.ndarray, size: np.ndarray, held: list[list[int]], into: int
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """So many rows left, each the plain mean of itself and of what came to it."""
    parts = [[row] for row in range(into)]
    grown, owns = size[:into].copy(), [list(own) for own in held[:into]]
    for row in range(into, len(x)):
        cosines = [
            float(x[row] @ x[to] / math.sqrt(x[row] @ x[row]) / math.sqrt(x[to] @ x[to]))
            for to in range(1, into)
        ]
        best = 1 + cosines.index(max(cosines))
        parts[best].append(row)
        grown[best] += size[row] * max(cosines)
        owns[best] += held[row]
    return np.array([x[rows].mean(axis=0) for rows in parts]), grown, owns

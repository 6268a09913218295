"""DyMU in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Letters: N tokens, P = 1 with a class
token, else 0, C channels, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracles.oracle import _ACTIVATIONS, _embed, _Weights
from tests.oracles.oracle_diffrate import attended, fed


@dataclass(frozen=True)
class DymuResult:
    """What one image gives.

    Attributes:
        pooled: Logits of a model with a class token, else what attention pools.
        counts: Tokens after each block.
        owner: For each patch the row that holds it at the end.
        held: How many sources the cap held back.
    """

    pooled: np.ndarray
    counts: tuple[int, ...]
    owner: list[int]
    held: int


def run_dymu(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    thresholds: Sequence[float],
    eps: float = 1e-6,
    activation: str = "gelu",
    pool_sizes: bool = True,
) -> DymuResult:
    """One image [channels, height, width] through a ViT of timm's names."""
    w = _Weights(weights, eps)
    front = int("cls_token" in w)
    x = _embed(w, np.asarray(image, dtype=np.float64))
    patches = len(x) - front
    size, owned = np.ones(len(x)), [[row - front] for row in range(len(x))]
    counts, held = [], 0
    for index, bound in enumerate(thresholds):
        block = f"blocks.{index}"
        x, _, keys = attended(w, block, x, size, heads)
        if bound < 1.0:
            x, size, owned, kept = _merged(x, size, owned, keys, bound, front)
            held += kept
        counts.append(len(x))
        x = fed(w, block, x, activation)
    x = w.norm("norm", x)
    if front:
        pooled = w.linear("head", x[:1])[0]
    else:
        pooled = _pooled(w, x, size if pool_sizes else np.ones(len(x)), heads, activation)
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")
    owner = [next(row for row, own in enumerate(owned) if p in own) for p in range(patches)]
    return DymuResult(pooled, tuple(counts), owner, held)


def _merged(
    x: np.ndarray,
    size: np.ndarray,
    owned: list[list[int]],
    keys: np.ndarray,
    bound: float,
    front: int,
) -> tuple[np.ndarray, np.ndarray, list[list[int]], int]:
    """What a block leaves, and how many sources above the threshold did not merge."""
    tokens = len(x)
    unit = keys / np.sqrt((keys**2).sum(axis=1, keepdims=True))
    sources, destinations = range(2 * front, tokens, 2), range(1, tokens, 2)
    best = {row: max(float(unit[row] @ unit[to]) for to in destinations) for row in sources}
    into = {
        row: next(to for to in destinations if float(unit[row] @ unit[to]) == best[row])
        for row in sources
    }
    ranked = sorted(sources, key=lambda row: -best[row])
    above = sum(value > bound for value in best.values())
    number = min(above, (tokens - front) // 2)
    if not number:
        return x, size, owned, 0
    merging = ranked[:number]
    stays = ranked[number:] if not front else sorted(ranked[number:])
    total, mass, whose = x * size[:, None], size.copy(), [list(own) for own in owned]
    for row in merging:
        total[into[row]] += total[row]
        mass[into[row]] += mass[row]
        whose[into[row]] += whose[row]
    order = [*range(front), *stays, *destinations]
    left = total[order] / mass[order][:, None]
    return left, mass[order], [whose[row] for row in order], above - number


def _pooled(
    w: _Weights, x: np.ndarray, size: np.ndarray, heads: int, activation: str
) -> np.ndarray:
    """One query attends to the tokens."""
    n, channels = x.shape
    width = channels // heads
    kv = w.linear("attn_pool.kv", x).reshape(n, 2, heads, width).transpose(1, 2, 0, 3)
    q = w.linear("attn_pool.q", w["attn_pool.latent"][0]).reshape(heads, 1, width)
    scores = (q * kv[0]).sum(axis=2) / math.sqrt(width) + np.log(size)  # [H, N]
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed = ((e / e.sum(axis=1, keepdims=True))[:, :, None] * kv[1]).sum(axis=1).reshape(1, -1)
    y = w.linear("attn_pool.proj", mixed)
    hidden = w.linear("attn_pool.mlp.fc1", w.norm("attn_pool.norm", y))
    return np.asarray((y + w.linear("attn_pool.mlp.fc2", _ACTIVATIONS[activation](hidden)))[0])

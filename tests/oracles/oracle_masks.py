"""LTM-Transformer on a ViT in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Targets that no patch reaches are
taken out, not masked. Letters: N patches, P targets, C channels; `front` tokens stand before the
patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tests.oracles.oracle import (
    _ACTIVATIONS,
    _attention,
    _classify,
    _embed,
    _Weights,
    protected,
)


@dataclass(frozen=True)
class MasksResult:
    """What one image gives.

    Attributes:
        logits: [classes] float64.
        reached: For each block that merges, the targets that some patch reaches.
        into: For each of these blocks with a hard mask, where each patch goes, -1 for nowhere.
        margin: The smallest distance of any of these decisions from falling otherwise.
    """

    logits: np.ndarray
    reached: tuple[tuple[int, ...], ...]
    into: tuple[tuple[int, ...], ...]
    margin: float


def run_masks(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    hard: bool,
    restore: bool,
    pool: str = "token",
    eps: float = 1e-6,
    activation: str = "gelu",
) -> MasksResult:
    """One image [channels, height, width] through a ViT with masks in some blocks."""
    w = _Weights(weights, eps)
    depth = len({k.split(".")[1] for k in w.arrays if k.startswith("blocks.")})
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    given = w["ltm.mask0"]
    margin, reached, into = math.inf, [], []
    for index in range(depth):
        block = f"blocks.{index}"
        x = x + _attention(w, block, x, np.ones(len(x)), heads)[0]
        if f"{block}.ltm.step" not in w:
            x = x + _mlp(w, block, x, activation)
            continue
        z = x[front:]
        mask = _mask(w, f"{block}.ltm", z, given)
        if hard:
            mask, target, near = _hardened(mask)
            into.append(tuple(target))
            margin = min(margin, near)
        targets = [p for p in range(mask.shape[1]) if mask[:, p].max() > 0]
        margin = min([margin, *(mask[:, p].max() for p in targets)])
        reached.append(tuple(targets))
        merged = np.zeros((mask.shape[1], z.shape[1]))
        for p in range(mask.shape[1]):
            total = mask[:, p].sum() + 1e-6
            for n in range(len(z)):
                merged[p] += mask[n, p] / total * z[n]
        added = _mlp(w, block, np.concatenate([x[:front], merged]), activation)
        if restore:
            shares = mask / (mask.sum(axis=1, keepdims=True) + 1e-6)
            rows = [z[n] + sum(shares[n, p] * added[front + p] for p in range(len(merged)))
                    for n in range(len(z))]  # fmt: skip
            x = np.array([*(x[:front] + added[:front]), *rows])
            given = mask
        else:
            x = np.concatenate([x[:front], merged]) + added
            # where nothing else would be left, the targets that nothing reached stay
            left = targets if targets or front else range(len(merged))
            x = x[[*range(front), *(front + p for p in left)]]
    logits = _classify(w, x, np.ones(len(x)), pool)
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")
    return MasksResult(logits, tuple(reached), tuple(into), margin)


def _mlp(w: _Weights, block: str, x: np.ndarray, activation: str) -> np.ndarray:
    """What the MLP adds."""
    hidden = _ACTIVATIONS[activation](w.linear(f"{block}.mlp.fc1", w.norm(f"{block}.norm2", x)))
    hidden = w.norm(f"{block}.mlp.norm", hidden)
    return np.asarray(w.scale(f"{block}.ls2", w.linear(f"{block}.mlp.fc2", hidden)))


def _mask(w: _Weights, name: str, z: np.ndarray, given: np.ndarray) -> np.ndarray:
    """[N, P], one gradient step away from the mask before."""
    flat = np.array([(row - row.mean()) / math.sqrt(row.var() + 1e-6) for row in z])
    targets = given.shape[1]
    means = np.array([flat.T @ given[:, p] / (given[:, p].sum() + 1e-6) for p in range(targets)])
    apart = means - w[f"{name}.center"]
    apart = apart - apart.mean(axis=0)
    likeness = np.array([[row @ other for other in apart] for row in flat]) / z.shape[1]
    return np.asarray(np.maximum(given - w[f"{name}.step"][0] * likeness, 0.0))


def _hardened(mask: np.ndarray) -> tuple[np.ndarray, list[int], float]:
    """Of each row its largest weight alone; where it is; and the smallest lead over the next."""
    only, target, margin = np.zeros_like(mask), [], math.inf
    for n, row in enumerate(mask):
        best = max(row)
        place = list(row).index(best)  # the lowest of equal ones
        only[n, place] = best
        target.append(place if best > 0 else -1)
        others = [value for value in row if value < best]
        margin = min(margin, best - max(others)) if others else margin
    return only, target, margin

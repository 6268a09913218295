"""K-Medoids and ATS as the TokenReduction zoo has them, in plain NumPy, float64, one image.

Written from METHOD §1 alone, slow on purpose; shares no code with the package. Letters: N tokens,
n of them patches, C channels, H heads, M clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tests.oracles.oracle import OracleResult, _classify, _embed, _Weights, protected
from tests.oracles.oracle_static import _check_read, _depth, _mlp, _positive


def _attended(
    w: _Weights, block: str, x: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is added to x [N, C], attention [H, N, N] and values [H, N, D]."""
    n, channels = x.shape
    qkv = w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", x))
    q, k, v = qkv.reshape(n, 3, heads, channels // heads).transpose(1, 2, 0, 3)
    q, k = w.norm(f"{block}.attn.q_norm", q), w.norm(f"{block}.attn.k_norm", k)
    shares = np.empty((heads, n, n))
    for head in range(heads):
        for query in range(n):
            scores = (k[head] * q[head, query]).sum(axis=1) / math.sqrt(q.shape[2])
            e = np.exp(scores - scores.max())
            shares[head, query] = e / e.sum()
    mixed = np.concatenate([shares[head] @ v[head] for head in range(heads)], 1)
    update = w.linear(f"{block}.attn.proj", w.norm(f"{block}.attn.norm", mixed))
    return w.scale(f"{block}.ls1", update), shares, v


def medoids(
    x: np.ndarray, received: Sequence[float], clusters: int, rounds: int
) -> tuple[list[int], float]:
    """Rows of x [n, C] that stay, and the smallest relative gap above zero of any decision."""
    n, gaps = len(x), []
    apart = [[float(np.linalg.norm(a - b)) for b in x] for a in x]
    cost = [received[i] * sum(apart[i]) for i in range(n)]
    ranked = sorted(range(n), key=lambda row: (-received[row], row))
    gaps += [a / b - 1 for a, b in pairwise(received[row] for row in ranked[: clusters + 1])]
    centres = ranked[:clusters]
    for _ in range(rounds):
        members: list[list[int]] = [[] for _ in centres]
        for row in range(n):
            near = sorted(range(clusters), key=lambda k: (apart[row][centres[k]], k))
            gaps += [apart[row][centres[b]] - apart[row][centres[a]] for a, b in pairwise(near[:2])]
            members[near[0]].append(row)
        for own in members:
            own.sort(key=lambda row: (cost[row], row))
            gaps += [cost[b] / cost[a] - 1 for a, b in pairwise(own[:2])]
        centres = [own[0] if own else 0 for own in members]
    return centres, _positive(gaps)


def sampled(values: Sequence[float], samples: int) -> tuple[list[int], float]:
    """Rows among the patches on which points fall, and the smallest gap above zero."""
    whole, running, found, gaps = sum(values) + 1e-6, list[float](), set(), []
    for value in values:
        running.append((running[-1] if running else 0.0) + value / whole)
    for j in range(samples - 1):
        point = (2 * j + 1) / (2 * samples)
        near = sorted(range(len(values)), key=lambda row: (abs(running[row] - point), row))
        gaps += [abs(running[b] - point) - abs(running[a] - point) for a, b in pairwise(near[:2])]
        found.add(near[0])
    return sorted(found), _positive(gaps)


def run_zoo(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    before: Mapping[int, tuple[int, int]] | None = None,
    within: Mapping[int, int] | None = None,
    eps: float = 1e-6,
    activation: str = "gelu",
) -> OracleResult:
    """One image [channels, height, width] through a ViT of timm's names that has a class token.

    Args:
        weights: Of the ViT.
        image: Normalised.
        heads: H.
        before: Clusters and rounds of K-Medoids before some blocks.
        within: Samples of ATS in some blocks.
        eps: Of its norms.
        activation: Of its MLPs.
    """
    w = _Weights(weights, eps)
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    counts, margin, received = [], math.inf, np.zeros(0)
    for index in range(_depth(w)):
        block = f"blocks.{index}"
        if before and index in before:
            rows, near = medoids(x[front:], received[front:].tolist(), *before[index])
            x, margin = np.stack([*x[:front], *x[front:][rows]]), min(margin, near)
        update, shares, v = _attended(w, block, x, heads)
        received, x = shares.sum((0, 1)), x + update
        if within and index in within:
            lengths = np.sqrt((v * v).sum(2))
            rows, near = sampled((shares[:, 0] * lengths).sum(0)[front:].tolist(), within[index])
            x, margin = np.stack([*x[:front], *x[front:][rows]]), min(margin, near)
        counts.append(len(x))
        x = _mlp(w, block, x, activation)
    logits = _classify(w, x, np.ones(len(x)), "token")
    _check_read(w)
    return OracleResult(logits, tuple(counts), margin)

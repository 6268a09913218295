"""What the zoo does to all patch tokens before a block, in plain NumPy, float64, one image.

Written from METHOD §1 alone, slow on purpose; shares no code with the package. Each function takes
the patches P [n, C] and gives the rows that stand in their place, and the smallest gap of a choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from tests.oracles.oracle import _ACTIVATIONS, OracleResult, _classify, _embed, _Weights, protected
from tests.oracles.oracle_static import _check_read, _depth, _mlp, _positive
from tests.oracles.oracle_zoo import _attended, medoids

Rows: TypeAlias = tuple[np.ndarray, float]
Change: TypeAlias = Callable[
    [_Weights, np.ndarray, np.ndarray], Rows
]  # patches, attention received


def _normed(w: _Weights, name: str, x: np.ndarray) -> np.ndarray:
    """LayerNorm of epsilon 1e-5."""
    x = x - x.mean(1, keepdims=True)
    x = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5)
    return np.asarray(x * w[f"{name}.weight"] + w[f"{name}.bias"])


def predicted(number: int, stay: int, floor: float) -> Change:
    """DynamicViT."""
    name = f"score_predictor.{number}"

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        gelu, half = _ACTIVATIONS["gelu"], p.shape[1] // 2
        h = gelu(w.linear(f"{name}.in_conv.1", _normed(w, f"{name}.in_conv.0", p)))
        pooled = h[:, half:].mean(0) + floor
        z = np.array([[*row[:half], *pooled] for row in h])
        for layer in (0, 2):
            z = gelu(w.linear(f"{name}.out_conv.{layer}", z))
        two = w.linear(f"{name}.out_conv.4", z)
        score = [a - math.log(math.exp(a) + math.exp(b)) for a, b in two]
        order = sorted(range(len(p)), key=lambda row: (-score[row], row))
        gaps = [score[a] - score[b] for a, b in pairwise(order[: stay + 1])]
        return p[order[:stay]], _positive(gaps)

    return change


def slimmed(number: int) -> Change:
    """SiT."""
    name = f"cluster_layers.{number}"

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        hidden = w.linear(f"{name}.weight.1", _normed(w, f"{name}.weight.0", p))
        score = w.linear(f"{name}.weight.3", _ACTIVATIONS["gelu"](hidden))
        e = np.exp(float(w[f"{name}.scale"].item()) * score)
        return np.asarray((e / e.sum(0)).T @ p), math.inf

    return change


def transported(number: int, eps: float, rounds: int) -> Change:
    """Sinkhorn."""

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        v = w[f"cluster_layers.{number}.v"]
        u, v = (one / np.sqrt((one * one).sum(1, keepdims=True)) for one in (p, v))
        z = v @ u.T / eps  # [M, n]
        c, b = -math.log(sum(z.shape)), np.zeros(z.shape[1])
        for _ in range(rounds):
            a = np.array([c - math.log(np.exp(row + b).sum()) for row in z])
            b = np.array([c - math.log(np.exp(column + a).sum()) for column in z.T])
        return np.asarray(np.exp(z + a[:, None] + b[None] - c) @ u), math.inf

    return change


def merged(number: int) -> Change:
    """PatchMerger."""
    name = f"cluster_layers.{number}"

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        normed = _normed(w, f"{name}.norm", p)
        e = np.exp(w[f"{name}.queries"] @ normed.T)
        return np.asarray(e / e.sum(1, keepdims=True) @ normed), math.inf

    return change


def clustered(number: int, tokens: int, neighbours: int, weighted: bool) -> Change:
    """DPC-KNN."""

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        n, gaps = len(p), list[float]()
        d = [[float(np.linalg.norm(a - b)) / math.sqrt(p.shape[1]) for b in p] for a in p]
        density = [
            math.exp(-sum(x * x for x in sorted(row)[:neighbours]) / neighbours) for row in d
        ]
        far = max(max(row) for row in d)
        peak = [
            min((d[i][j] for j in range(n) if density[j] > density[i]), default=far)
            for i in range(n)
        ]
        score = [a * b for a, b in zip(peak, density, strict=True)]
        order = sorted(range(n), key=lambda row: (-score[row], row))
        gaps += [score[a] - score[b] for a, b in pairwise(order[: tokens + 1])]
        ranked = sorted(density)
        gaps += [b - a for a, b in pairwise(ranked)]
        centres, layer = order[:tokens], f"cluster_layers.{number}.score"
        e = np.exp(w.linear(layer, p)[:, 0]) if weighted else np.ones(n)
        sums, total = np.zeros((tokens, p.shape[1])), np.full(tokens, 1e-6)
        for row in range(n):
            near = sorted(range(tokens), key=lambda k: (d[row][centres[k]], k))
            to = centres.index(row) if row in centres else near[0]
            if row not in centres and tokens > 1:
                gaps.append(d[row][centres[near[1]]] - d[row][centres[near[0]]])
            sums[to] += e[row] * p[row]
            total[to] += e[row]
        return sums / total[:, None], _positive(gaps)

    return change


def middles(tokens: int, rounds: int) -> Change:
    """K-Medoids."""

    def change(w: _Weights, p: np.ndarray, received: np.ndarray) -> Rows:
        rows, near = medoids(p, received.tolist(), tokens, rounds)
        return p[rows], near

    return change


def ring(patches: list[int]) -> Change:
    """A fixed pattern: the rows that stay."""
    return lambda w, p, received: (p[patches], math.inf)


def run_before(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    before: Mapping[int, Change],
    pool: str = "token",
) -> OracleResult:
    """One image [channels, height, width] through a ViT of timm's names, changed before blocks."""
    w = _Weights(weights, 1e-6)
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    counts, margin, received = [], math.inf, np.zeros(0)
    for index in range(_depth(w)):
        block = f"blocks.{index}"
        if index in before:
            rows, near = before[index](w, x[front:], received[front:])
            x, margin = np.concatenate([x[:front], rows]), min(margin, near)
        update, shares, _ = _attended(w, block, x, heads)
        received, x = shares.sum((0, 1)), x + update
        counts.append(len(x))
        x = _mlp(w, block, x, "gelu")
    logits = _classify(w, x, np.ones(len(x)), pool)
    _check_read(w)
    return OracleResult(logits, tuple(counts), margin)

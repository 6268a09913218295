"""Multi-Scale and Token Mergence in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Among equal scores the lower
position comes first. Letters: N tokens, P of them protected in front, C channels, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracles.oracle import _ACTIVATIONS, _classify, _embed, _Weights, protected


@dataclass(frozen=True)
class MergenceResult:
    """What one image gives.

    Attributes:
        logits: [classes] float64.
        counts: Tokens after each block.
        owned: Patches that each token owns at the end, 1 of a protected one.
        margin: The smallest gap, above zero, between a patch that stays and one that does not, or
            between a partner and the next best.
    """

    logits: np.ndarray
    counts: tuple[int, ...]
    owned: tuple[int, ...]
    margin: float


def run_mergence(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    keep_rate: float,
    merge_at: Sequence[int],
    mean: str = "uniform",
    eps: float = 1e-6,
    activation: str = "gelu",
) -> MergenceResult:
    """One image [channels, height, width] through a class-token ViT of timm's names."""
    w = _Weights(weights, eps)
    depth = len({k.split(".")[1] for k in w.arrays if k.startswith("blocks.")})
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    if "patch_embed.coarse.weight" in w:
        coarse = _coarse(w, np.asarray(image, dtype=np.float64))
        x = np.concatenate([x[:front], x[front:] + coarse])
    patches, owned = len(x) - front, [1] * len(x)
    margin, counts = math.inf, []
    for index in range(depth):
        block = f"blocks.{index}"
        update, shares = class_attention(w, block, x, heads)
        x = x + update
        if index in merge_at:
            left = int(keep_rate ** (1 + list(merge_at).index(index)) * patches)
            if left < len(x) - front:
                x, owned, near = _merged(x, shares, owned, left, mean, front)
                margin = min(margin, near)
        counts.append(len(x))
        hidden = _ACTIVATIONS[activation](w.linear(f"{block}.mlp.fc1", w.norm(f"{block}.norm2", x)))
        x = x + w.scale(f"{block}.ls2", w.linear(f"{block}.mlp.fc2", hidden))
    logits = _classify(w, x, np.ones(len(x)), "token")
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")
    return MergenceResult(logits, tuple(counts), tuple(owned), margin)


def _coarse(w: _Weights, image: np.ndarray) -> np.ndarray:
    """[N, C] for each patch the projection of the patch of four times its size that it lies in."""
    kernel, bias = w["patch_embed.coarse.weight"], w["patch_embed.coarse.bias"]
    height, width = kernel.shape[2] // 2, kernel.shape[3] // 2
    rows = []
    for top in range(0, image.shape[1], height):
        for left in range(0, image.shape[2], width):
            y, x = top - top % (2 * height), left - left % (2 * width)
            pixels = image[:, y : y + 2 * height, x : x + 2 * width]
            rows.append((kernel * pixels).sum(axis=(1, 2, 3)) + bias)
    return np.array(rows)


def class_attention(
    w: _Weights, block: str, x: np.ndarray, heads: int
) -> tuple[np.ndarray, list[float]]:
    """What is added to x [N, C], and what the class token gives each token, mean over heads."""
    n, channels = x.shape
    qkv = w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", x))
    q, k, v = qkv.reshape(n, 3, heads, channels // heads).transpose(1, 2, 0, 3)
    q, k = w.norm(f"{block}.attn.q_norm", q), w.norm(f"{block}.attn.k_norm", k)
    mixed, shares = np.empty((n, channels)), np.zeros(n)
    for head in range(heads):
        columns = slice(head * q.shape[2], (head + 1) * q.shape[2])
        for query in range(n):
            scores = (k[head] * q[head, query]).sum(axis=1) / math.sqrt(q.shape[2])
            e = np.exp(scores - scores.max())
            mixed[query, columns] = (e / e.sum()) @ v[head]
            if query == 0:
                shares += e / e.sum() / heads
    update = w.linear(f"{block}.attn.proj", w.norm(f"{block}.attn.norm", mixed))
    return w.scale(f"{block}.ls1", update), shares.tolist()


def _merged(
    x: np.ndarray, shares: list[float], owned: list[int], left: int, mean: str, front: int
) -> tuple[np.ndarray, list[int], float]:
    """So many patches left, each the mean of itself and of what came to it."""
    ranked = sorted(range(front, len(x)), key=lambda place: (-shares[place], place))
    margin = shares[ranked[left - 1]] - shares[ranked[left]]
    kept = sorted(ranked[:left])
    weight = {place: [(1.0 if mean == "similarity" else _own(place, shares, owned, mean), place)]
              for place in kept}  # fmt: skip
    for place in sorted(ranked[left:]):
        cosines = [_cosine(x[place], x[other]) for other in kept]
        best = max(cosines)
        into = kept[cosines.index(best)]  # the lowest on a tie
        gaps = [best - value for value in cosines if value < best]
        margin = min(margin, *gaps) if gaps else margin
        share = max(best, 0.0) if mean == "similarity" else _own(place, shares, owned, mean)
        weight[into].append((share, place))
    rows = list(x[:front])
    for place in kept:
        total = sum(share for share, _ in weight[place])
        rows.append(np.asarray(sum(share * x[other] for share, other in weight[place])) / total)
    counts = [1] * front + [sum(owned[other] for _, other in weight[place]) for place in kept]
    return np.array(rows), counts, margin if margin > 0 else math.inf


def _own(place: int, shares: list[float], owned: list[int], mean: str) -> float:
    """What a patch weighs."""
    return {"uniform": 1.0, "size": float(owned[place]), "importance": shares[place]}[mean]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / math.sqrt((a * a).sum()) / math.sqrt((b * b).sum()))

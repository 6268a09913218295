"""Prune-and-Merge in plain NumPy, float64, one image: slow on purpose.

Written from METHOD §1 alone; shares no code with the package. Its matrices act on all rows, those
in front among them. Letters: N tokens, C channels, H heads of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.oracle import OracleResult, _classify, _embed, _Weights
from tests.oracles.oracle_static import _check_read, _depth, _mlp


def block_left(w: _Weights, index: int, x: np.ndarray, heads: int) -> tuple[np.ndarray, int]:
    """One block token by token, x [N, C] → [N, C], and on how many tokens it ran."""
    block = f"blocks.{index}"
    merging = f"{block}.attn.merge_matrix" in w
    z = w[f"{block}.attn.merge_matrix"] @ x if merging else x
    qkv = w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", z))
    q, k, v = qkv.reshape(len(z), 3, heads, -1).transpose(1, 2, 0, 3)  # each [H, N, D]
    mixed = np.zeros((len(z), heads, q.shape[2]))
    for head in range(heads):
        for row in range(len(z)):
            score = np.array([q[head, row] @ k[head, other] for other in range(len(z))])
            score = score / math.sqrt(q.shape[2])
            share = np.exp(score - score.max())
            mixed[row, head] = share @ v[head] / share.sum()
    z = z + w.linear(f"{block}.attn.proj", mixed.reshape(len(z), -1))
    left = _mlp(w, block, z, "gelu")
    if not merging:
        return left, len(z)
    recover, mask = w[f"{block}.attn.recover_matrix"], w[f"{block}.attn.token_mask"]
    rows = [recover[n] @ left + (1 - mask[n]) * x[n] for n in range(len(x))]
    return np.stack(rows), len(z)


def run_pmvit(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    pool: str = "token",
    eps: float = 1e-6,
) -> OracleResult:
    """One image [channels, height, width] through a ViT of timm's names with matrices.

    The counts are the tokens on which each block ran; nothing is decided. Raises what `oracle.run`
    does.
    """
    w = _Weights(weights, eps)
    x, counts = _embed(w, np.asarray(image, dtype=np.float64)), []
    for index in range(_depth(w)):
        x, count = block_left(w, index, x, heads)
        counts.append(count)
    logits = _classify(w, x, np.ones(len(x)), pool)
    _check_read(w)
    return OracleResult(logits, tuple(counts), math.inf)

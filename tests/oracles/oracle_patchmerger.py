"""PatchMerger (Renggli et al. 2022, arXiv 2202.12015) in plain NumPy, float64, one image.

In two dialects of weights. As in `oracle_static`, no code is shared with the package, and a weight
that is not known is refused. Letters: N tokens, P of them protected in front, C channels, H heads,
D per head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tests.oracles.oracle import (
    _ACTIVATIONS,
    OracleResult,
    _attention,
    _classify,
    _embed,
    _Weights,
    protected,
)
from tests.oracles.oracle_static import _check_read, _depth, _mlp


def _norm(w: _Weights, name: str, x: np.ndarray, eps: float) -> np.ndarray:
    """A LayerNorm that the model must have, with its own eps."""
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return np.asarray(x * w[f"{name}.weight"] + w[f"{name}.bias"])


def _mix(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The mean of the rows, weighted by the softmax of their scores."""
    e = np.exp(scores - scores.max())
    return np.asarray((e / e.sum()) @ rows)


def _embed_pixels(w: _Weights, image: np.ndarray) -> np.ndarray:
    """Image to tokens [patches, C], as vit-pytorch does: norm, linear, norm, position."""
    name, (channels, height, width) = "to_patch_embedding", image.shape
    p = math.isqrt(len(w[f"{name}.1.weight"]) // channels)  # patches are square
    corners = [(top, left) for top in range(0, height, p) for left in range(0, width, p)]
    position = w["pos_embedding"][0]  # [patches + 1, C]: the last row is not used
    if height % p or width % p or len(position) != len(corners) + 1:
        raise ValueError(f"image {image.shape} does not fit {len(position) - 1} patches of {p}")
    pixels = [image[:, i : i + p, j : j + p].transpose(1, 2, 0).ravel() for i, j in corners]
    x = w.linear(f"{name}.2", _norm(w, f"{name}.1", np.array(pixels), w.eps))
    return np.asarray(_norm(w, f"{name}.3", x, w.eps) + position[:-1])


def _layer(w: _Weights, name: str, x: np.ndarray, heads: int) -> np.ndarray:
    """A layer of vit-pytorch."""
    qkv = w.linear(f"{name}.0.to_qkv", _norm(w, f"{name}.0.norm", x, w.eps))  # [N, 3HD]
    q, k, v = qkv.reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)  # each [H, N, D]
    scale = q.shape[2] ** -0.5
    mixed = np.array(
        [[_mix(scale * (k[h] * row).sum(axis=1), v[h]) for row in q[h]] for h in range(heads)]
    )
    mixed = mixed.transpose(1, 0, 2).reshape(len(x), -1)  # [H, N, D] to [N, HD]
    out = f"{name}.0.to_out.0"  # one head as wide as the model has none
    x = x + (w.linear(out, mixed) if f"{out}.weight" in w else mixed)
    hidden = w.linear(f"{name}.1.net.1", _norm(w, f"{name}.1.net.0", x, w.eps))
    return np.asarray(x + w.linear(f"{name}.1.net.4", _ACTIVATIONS["gelu"](hidden)))


def _merger(w: _Weights, name: str, x: np.ndarray, scale: float, eps: float) -> np.ndarray:
    """PatchMerger: tokens [N, C] to [M, C]."""
    y = _norm(w, f"{name}.norm", x, eps)
    return np.array([_mix(scale * (y * query).sum(axis=1), y) for query in w[f"{name}.queries"]])


def _deit(
    w: _Weights,
    image: np.ndarray,
    heads: int,
    places: Sequence[int],
    scale: float,
    eps: float,
    pool: str,
) -> tuple[np.ndarray, list[int]]:
    """Logits and counts of a timm ViT with mergers that the protected tokens go round."""
    x, front, counts = _embed(w, image), protected(w), list[int]()
    for index in range(_depth(w)):
        for k in (k for k, place in enumerate(places) if place == index):
            mixed = _merger(w, f"cluster_layers.{k}", x[front:], scale, eps)
            x = np.concatenate([x[:front], mixed])
        block = f"blocks.{index}"
        x = _mlp(w, block, x + _attention(w, block, x, np.ones(len(x)), heads)[0], "gelu")
        counts.append(len(x))
    return _classify(w, x, np.ones(len(x)), pool), counts


def _vit_pytorch(
    w: _Weights, image: np.ndarray, heads: int, place: int, scale: float, eps: float
) -> tuple[np.ndarray, list[int]]:
    """Logits and counts of vit-pytorch's vit_with_patch_merger.ViT."""
    x, counts = _embed_pixels(w, image), []
    for index in range(_depth(w, "transformer.layers.")):
        x = _layer(w, f"transformer.layers.{index}", x, heads)
        counts.append(len(x))
        if index + 1 == place:
            x = _merger(w, "transformer.patch_merger", x, scale, eps)
    mean = _norm(w, "transformer.norm", x, w.eps).mean(axis=0, keepdims=True)
    return np.asarray(w.linear("mlp_head.1", mean)[0]), counts


def run_patchmerger(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    heads: int,
    merge_at: Sequence[int] | int | None = None,
    scale: float | None = None,
    eps: float | None = None,
    merger_eps: float = 1e-5,
    pool: str = "token",
    dialect: str,
) -> OracleResult:
    """Run a ViT with PatchMerger on one image: Y = softmax(scale · queries · LN(X)ᵀ) · LN(X).

    Dialect "deit": timm's names and `cluster_layers.{k}` for merger k; scale 1, eps 1e-6, `pool`.
    "vit_pytorch": vit_with_patch_merger.ViT, one merger; scale C^-0.5, eps 1e-5, mean.
    merge_at = l puts a merger between blocks, with l of them before it (None: half): counts[l] is
    the first to show it. Its norm has merger_eps, all others eps.

    Raises ValueError as `oracle.run` and for a merge_at out of range, KeyError as that does.
    """
    if dialect not in ("deit", "vit_pytorch"):
        raise ValueError(f"unknown option: {dialect=}")
    deit, pixels = dialect == "deit", np.asarray(image, dtype=np.float64)
    w = _Weights(weights, eps if eps is not None else 1e-6 if deit else 1e-5)
    depth = _depth(w, "blocks." if deit else "transformer.layers.")
    if merge_at is None:
        merge_at = depth // 2
    places = [merge_at] if isinstance(merge_at, int) else list(merge_at)
    legal = range(depth) if deit else range(1, depth + 1)
    if not all(place in legal for place in places) or not (deit or len(places) == 1):
        raise ValueError(f"{dialect} of depth {depth} has no such place: {merge_at=}")
    if deit:
        factor = 1.0 if scale is None else scale
        logits, counts = _deit(w, pixels, heads, places, factor, merger_eps, pool)
    else:
        factor = w["pos_embedding"].shape[2] ** -0.5 if scale is None else scale
        logits, counts = _vit_pytorch(w, pixels, heads, places[0], factor, merger_eps)
    _check_read(w)
    return OracleResult(logits, tuple(counts), math.inf)

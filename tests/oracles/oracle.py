"""LTMP inference in plain NumPy, float64, one image: slow on purpose, and independent of the tool.

Written from METHOD §1 (Bonnaerens & Dambre, TMLR 2023, arXiv 2307.10780) alone. It shares no
code with the package it judges and needs no torch. Shape letters: N tokens, P of them protected in
front, C channels, H heads, D channels per head. Every weight has to be read: a key that the oracle
does not know is refused.

Each token goes through the same calls, row by row, so equal tokens stay equal to the last bit and
a tie is a tie, won by the lowest index. Only a merge may end this: a sum over its size is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracles import oracle_layers

# family -> its reduction steps, in order
_STEPS = {"ltmp": "merge prune", "ltpm": "prune merge", "ltm": "merge", "ltp": "prune", "dense": ""}

_erf = np.vectorize(math.erf, otypes=[np.float64])

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: x / 2 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / 2 * (1 + np.tanh(1.702 * x / 2)),  # σ(z) = (1 + tanh(z/2))/2
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / 2 * (1 + np.tanh(x / 2)),
}


@dataclass(frozen=True)
class OracleResult:
    """What the method gives for one image.

    margin is the smallest distance of any decision to flipping: |best_i - θm| over the sources that
    could merge, |u_j - θp| over the tokens that are not protected, for a merging source the gap
    between its best and second-best partner when that gap is > 0, and for a token that alone
    survives because nothing is protected its lead when that is > 0; +inf without a decision.
    """

    logits: np.ndarray  # [classes] float64
    counts: tuple[int, ...]  # tokens after each block
    margin: float


class _Weights:
    """The layers of a state_dict by timm name, in float64, remembering which keys were read."""

    def __init__(self, weights: Mapping[str, np.ndarray], eps: float) -> None:
        self.arrays = {k: np.asarray(v, dtype=np.float64) for k, v in weights.items()}
        self.eps = eps
        # The frozen thresholds come in as arguments; their keys may stay in the state_dict.
        self.unread = {k for k in self.arrays if not k.endswith("_masker.threshold")}

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> np.ndarray:
        self.unread.discard(key)
        return self.arrays[key]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """Give x·Wᵀ + b for each row of x [N, in]; the bias may be absent."""
        weight = self[f"{name}.weight"]
        y = np.array([weight @ row for row in x])  # [N, out]
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """LayerNorm over the last axis, RMSNorm without bias; the identity of no such layer."""
        if f"{name}.weight" not in self:
            return x
        if f"{name}.bias" not in self:
            length = np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps)
            return np.asarray(x / length * self[f"{name}.weight"])
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps)
        return np.asarray(x * self[f"{name}.weight"] + self[f"{name}.bias"])

    def scale(self, name: str, x: np.ndarray) -> np.ndarray:
        """Layer-scale; the identity when the model has none."""
        return x * self[f"{name}.gamma"] if f"{name}.gamma" in self else x


def protected(w: _Weights) -> int:
    """P: class token, distillation token and registers, as far as there are any."""
    names = ("cls_token", "dist_token", "reg_token")
    return sum(w.arrays[name].shape[1] for name in names if name in w)


def _embed(w: _Weights, image: np.ndarray) -> np.ndarray:
    """Image [3, height, width] to tokens [P + patches, C], the protected ones in front."""
    kernel = w["patch_embed.proj.weight"]  # [C, 3, ph, pw]
    ph, pw = kernel.shape[2:]
    if image.shape[0] != kernel.shape[1] or image.shape[1] % ph or image.shape[2] % pw:
        raise ValueError(f"image {image.shape} does not fit patch kernel {kernel.shape}")
    rows = []
    for top in range(0, image.shape[1], ph):
        for left in range(0, image.shape[2], pw):
            patch = image[:, top : top + ph, left : left + pw]
            rows.append((kernel * patch).sum(axis=(1, 2, 3)))
    x = np.array(rows)  # [patches, C]
    if "patch_embed.proj.bias" in w:
        x = x + w["patch_embed.proj.bias"]
    x = w.norm("patch_embed.norm", x)
    front = [w[name][0] for name in ("cls_token", "dist_token", "reg_token") if name in w]
    every = np.concatenate([*front, x])
    if "pos_embed" in w:
        position = w["pos_embed"][0]  # [patches or P + patches, C]
        if len(position) not in (len(x), len(every)):
            raise ValueError(f"pos_embed has {len(position)} rows for {len(x)} patches")
        every[len(every) - len(position) :] += position  # of patches alone: timm's no_embed_class
    return w.norm("norm_pre", every)


def _attention(
    w: _Weights, block: str, x: np.ndarray, size: np.ndarray, heads: int, activation: str = "gelu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps 1 and 2: what is added to x [N, C], importance [N], keys averaged over heads [N, D]."""
    n, channels = x.shape
    qkv, own = oracle_layers.first(w, block, x)  # [N, 3C]
    q, k, v = qkv.reshape(n, 3, heads, channels // heads).transpose(1, 2, 0, 3)  # each [H, N, D]
    q, k = w.norm(f"{own}.q_norm", q), w.norm(f"{own}.k_norm", k)
    attention = np.empty((heads, n, n))  # [H, query, key]
    mixed = np.empty((n, channels))
    for head in range(heads):
        columns = slice(head * q.shape[2], (head + 1) * q.shape[2])
        for query in range(n):
            scores = (k[head] * q[head, query]).sum(axis=1) / math.sqrt(q.shape[2]) + np.log(size)
            e = np.exp(scores - scores.max())
            attention[head, query] = e / e.sum()
            mixed[query, columns] = attention[head, query] @ v[head]
    update = oracle_layers.added(w, block, x, mixed, _ACTIVATIONS[activation])
    importance = attention.mean(axis=(0, 1))
    importance[: protected(w)] = math.inf
    return update, importance, k.mean(axis=0)


def _merge(
    sums: np.ndarray,
    size: np.ndarray,
    u: np.ndarray,
    keys: np.ndarray,
    threshold: float,
    front: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Steps 3 and 4 on sums = X·s [N, C]: the new sums, sizes and importances, and the margin.

    Of all rows the even ones are sources, the odd ones destinations; the `front` ones are neither.
    """
    sums, size, u = sums.copy(), size.copy(), u.copy()
    lengths = np.sqrt((keys**2).sum(axis=1, keepdims=True))
    if not lengths[front:].all():
        raise ValueError("a token's mean key is zero: its similarity to others is undefined")
    m = keys / np.where(lengths > 0, lengths, 1.0)  # a zero protected key is harmless
    margin = math.inf
    sources = [i for i in range(front, len(sums)) if i % 2 == 0]
    destinations = [j for j in range(front, len(sums)) if j % 2 == 1]
    unmerged = list(range(front))
    for i in sources if destinations else []:
        similarity = [float((m[i] * m[j]).sum()) for j in destinations]
        best = max(similarity)
        margin = min(margin, abs(best - threshold))
        if not best > threshold:
            unmerged.append(i)
            continue
        first = similarity.index(best)  # the lowest on a tie
        gap = min((best - s for k, s in enumerate(similarity) if k != first), default=0.0)
        margin = min(margin, gap) if gap > 0 else margin
        to = destinations[first]
        sums[to] += sums[i]
        size[to] += size[i]
        u[to] = max(u[to], u[i])
    order = unmerged + (destinations or sources)
    return sums[order], size[order], u[order], margin


def _prune(u: np.ndarray, threshold: float) -> tuple[list[int], float]:
    """Step 5: the positions kept, in order, and the margin; never none."""
    kept = [j for j in range(len(u)) if u[j] > threshold]
    margin = min((abs(float(v) - threshold) for v in u if v < math.inf), default=math.inf)
    if not kept:
        kept = [max(range(len(u)), key=lambda j: (u[j], -j))]  # of equal ones the first
        lead = min((float(u[kept[0]] - v) for v in u if v < u[kept[0]]), default=math.inf)
        margin = min(margin, lead)
    return kept, margin


def _classify(w: _Weights, x: np.ndarray, size: np.ndarray, pool: str) -> np.ndarray:
    """Final norm, pooling and head; of a distilled model the mean of both heads."""
    x, front = w.norm("norm", x), protected(w)
    if "dist_token" in w:
        return np.asarray((w.linear("head", x[:1]) + w.linear("head_dist", x[1:2]))[0] / 2)
    pooled = x[:1] if pool == "token" else _mean_of_patches(x[front:], size[front:])
    return np.asarray(w.linear("head", w.norm("fc_norm", pooled))[0])


def _mean_of_patches(x: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Tokens [N, C] that stand for size [N] patches each: [1, C], zeros of no token."""
    total = np.zeros((1, x.shape[1]))
    for row, patches in zip(x, size, strict=True):
        total += patches * row
    return np.asarray(total / max(size.sum(), 1))


def run(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    family: str,
    merge: Sequence[float] | None,
    prune: Sequence[float] | None,
    heads: int,
    eps: float = 1e-6,
    pool: str = "token",
    activation: str = "gelu",
) -> OracleResult:
    """Run LTMP inference on one image [3, height, width] with a timm ViT's weights.

    Thresholds: one float per block, compared as given; a list the family does not use is ignored.
    Raises ValueError for an unknown option, missing thresholds, a shape that does not fit or a
    weight left unread, KeyError for a missing weight.
    """
    if family not in _STEPS or pool not in ("token", "avg") or activation not in _ACTIVATIONS:
        raise ValueError(f"unknown option: {family=}, {pool=}, {activation=}")
    w = _Weights(weights, eps)
    depth = len({k.split(".")[1] for k in w.arrays if k.startswith("blocks.")})
    thresholds = {"merge": list(merge or ()), "prune": list(prune or ())}
    for step in _STEPS[family].split():
        if len(thresholds[step]) != depth:
            raise ValueError(f"{family} needs {depth} {step} thresholds: {thresholds[step]}")

    x = _embed(w, np.asarray(image, dtype=np.float64))
    size = np.ones(len(x))
    counts, margin = [], math.inf
    for index in range(depth):
        block = f"blocks.{index}"
        update, u, keys = _attention(w, block, x, size, heads, activation)
        x = (x + update) * size[:, None]
        for step in _STEPS[family].split():
            threshold = thresholds[step][index]
            if step == "merge":
                x, size, u, near = _merge(x, size, u, keys, threshold, protected(w))
            else:
                kept, near = _prune(u, threshold)
                x, size, u, keys = x[kept], size[kept], u[kept], keys[kept]
            margin = min(margin, near)
        x = x / size[:, None]
        counts.append(len(x))
        x = x + oracle_layers.second(w, block, x, _ACTIVATIONS[activation])

    logits = _classify(w, x, size, pool)
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")
    return OracleResult(logits, tuple(counts), margin)

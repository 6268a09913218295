"""Token reduction to counts known beforehand, in plain NumPy, float64, one image: slow on purpose.

`run_fixed`: the fixed-rate families m, p, mp, pm of METHOD §1 (m is ToMe, arXiv 2210.09461).
`run_budget`: the learned-threshold families with at most so many tokens left after each block.

As in `oracle`, no code is shared with the package, a weight that is not known is refused, and
each token goes through the same calls, so equal tokens score the same. Every sorting is stable:
among equal scores the lower position comes first. Letters: N tokens, C channels, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracles import oracle_layers
from tests.oracles.oracle import (
    _ACTIVATIONS,
    OracleResult,
    _attention,
    _embed,
    _mean_of_patches,
    _Weights,
)

# family -> its reduction steps, in order
_FIXED = {"m": "merge", "p": "prune", "mp": "merge prune", "pm": "prune merge"}
_LEARNED = {"ltmp": "merge prune", "ltpm": "prune merge", "ltm": "merge", "ltp": "prune"}


@dataclass(frozen=True)
class BudgetResult:
    """What a learned-threshold family under a budget gives for one image.

    margin is that of `oracle`, and where a budget drops tokens the gap between the least
    important token kept and the most important one dropped, when that gap is > 0.
    """

    logits: np.ndarray  # [classes] float64
    counts: tuple[int, ...]  # tokens after each block, its budget included
    overflow: tuple[int, ...]  # tokens dropped by each block's budget alone
    margin: float


@dataclass(frozen=True)
class _Tokens:
    """One image inside a block; a merged token has the key of its destination."""

    sums: np.ndarray  # [N, C]: X·s
    size: np.ndarray  # [N]
    u: np.ndarray  # [N]: importance, +inf for the class token
    keys: np.ndarray  # [N, D]: mean over heads

    def take(self, order: Iterable[int]) -> _Tokens:
        rows = list(order)
        return _Tokens(self.sums[rows], self.size[rows], self.u[rows], self.keys[rows])


@dataclass(frozen=True)
class _Match:
    """A source's best partner."""

    best: float  # its similarity
    to: int  # its position
    gap: float  # how far the second best is behind; +inf without one


_Reduce = Callable[[int, _Tokens], tuple[_Tokens, float]]  # (block, tokens) -> tokens, margin


def _positive(gaps: Iterable[float]) -> float:
    """The smallest gap above zero; +inf without one."""
    return min((gap for gap in gaps if gap > 0), default=math.inf)


def _by_importance(t: _Tokens) -> list[int]:
    """Positions by descending importance, the class token's first."""
    return sorted(range(len(t.u)), key=lambda j: -float(t.u[j]))


def _match(keys: np.ndarray, distilled: bool = False) -> dict[int, _Match]:
    """Step 3: each source's best partner, by its position, ascending; not the class token's."""
    lengths = np.sqrt((keys**2).sum(axis=1, keepdims=True))
    if not lengths[2 if distilled else 1 :].all():
        raise ValueError("a token's mean key is zero: its similarity to others is undefined")
    m = keys / np.where(lengths > 0, lengths, 1.0)
    found = {}
    for i in range(2, len(m), 2):
        scores = {j: float((m[i] * m[j]).sum()) for j in range(1, len(m), 2)}
        if distilled:
            scores[1] = -math.inf
        best = max(scores.values())
        to = min(j for j in scores if scores[j] == best)
        gap = min((best - scores[j] for j in scores if j != to), default=math.inf)
        found[i] = _Match(best, to, gap)
    return found


def _merge(t: _Tokens, partners: Mapping[int, int], order: Iterable[int]) -> _Tokens:
    """Step 4: add each source in `partners` to its destination, then take the rows of `order`."""
    sums, size, u = t.sums.copy(), t.size.copy(), t.u.copy()
    for i, to in partners.items():
        sums[to] += sums[i]
        size[to] += size[i]
        u[to] = max(u[to], u[i])
    return _Tokens(sums, size, u, t.keys).take(order)


def _merge_best(t: _Tokens, r: int, distilled: bool, by_score: bool) -> tuple[_Tokens, float]:
    """Merge the r sources that match best; by_score: the unmerged in mp's order, class last."""
    found = _match(t.keys, distilled)
    ranked = sorted(found, key=lambda i: -found[i].best)
    merging, rest, destinations = ranked[:r], ranked[r:], range(1, len(t.u), 2)
    margin = _positive(found[i].gap for i in merging)
    if rest:
        margin = min(margin, found[merging[-1]].best - found[rest[0]].best)
    order = [*rest, 0, *destinations] if by_score else [0, *sorted(rest), *destinations]
    if distilled:
        order = [0, 1, *sorted(rest), *destinations[1:]]
    return _merge(t, {i: found[i].to for i in merging}, order), margin


def _prune_last(t: _Tokens, r: int) -> tuple[_Tokens, float]:
    """Sort by importance and drop the last r, which may be none."""
    ranked = _by_importance(t)
    kept = ranked[: len(ranked) - r]
    pairs = zip(kept, ranked[1:], strict=False)  # the last one lies across the cut
    return t.take(kept), _positive(float(t.u[a] - t.u[b]) for a, b in pairs)


def _merge_above(t: _Tokens, threshold: float) -> tuple[_Tokens, float]:
    """Merge every source whose best score is above the threshold."""
    found = _match(t.keys)
    partners = {i: match.to for i, match in found.items() if match.best > threshold}
    order = [0, *(i for i in found if i not in partners), *range(1, len(t.u), 2)]
    near = min((abs(match.best - threshold) for match in found.values()), default=math.inf)
    return _merge(t, partners, order), min(near, _positive(found[i].gap for i in partners))


def _prune_below(t: _Tokens, threshold: float) -> tuple[_Tokens, float]:
    """Keep, in order, every token whose importance is above the threshold."""
    near = min((abs(float(value) - threshold) for value in t.u[1:]), default=math.inf)
    return t.take(j for j in range(len(t.u)) if t.u[j] > threshold), near


def _fit(t: _Tokens, keep: int) -> tuple[_Tokens, float]:
    """Keep, in order, the `keep` most important tokens."""
    if len(t.u) <= keep:
        return t, math.inf
    ranked = _by_importance(t)
    gap = float(t.u[ranked[keep - 1]] - t.u[ranked[keep]])
    return t.take(sorted(ranked[:keep])), _positive([gap])


def _depth(w: _Weights, prefix: str = "blocks.") -> int:
    """How many layers have names that start with the prefix."""
    return len({k.removeprefix(prefix).split(".")[0] for k in w.arrays if k.startswith(prefix)})


def _check_list(name: str, values: Sequence[float], depth: int, low: float = -math.inf) -> None:
    """Raise ValueError unless there is one value for each block, and none below `low`."""
    if len(values) != depth or not all(value >= low for value in values):
        raise ValueError(f"{name} needs {depth} values, none below {low}: {values}")


def _check_read(w: _Weights) -> None:
    if w.unread:
        raise ValueError(f"the oracle does not know these weights: {sorted(w.unread)}")


def _embed_distilled(w: _Weights, image: np.ndarray) -> np.ndarray:
    """Image to tokens [patches + 2, C]: class, distillation, patches."""
    position = w["pos_embed"]  # [1, patches + 2, C]
    distillation = w.norm("norm_pre", w["dist_token"][0] + position[0, 1:2])
    w.arrays["pos_embed"] = np.delete(position, 1, axis=1)
    x = _embed(w, image)  # class, patches
    if position.shape[1] != len(x) + 1:
        raise ValueError(f"pos_embed has {position.shape[1]} rows for {len(x) - 1} patches")
    return np.concatenate([x[:1], distillation, x[1:]])


def _mlp(w: _Weights, block: str, x: np.ndarray, activation: str) -> np.ndarray:
    """Step 6."""
    normed = w.norm(f"{block}.norm2", x)
    update = oracle_layers.mlp(w, f"{block}.mlp", normed, _ACTIVATIONS[activation])
    return np.asarray(x + w.scale(f"{block}.ls2", update))


def _forward(
    w: _Weights, image: np.ndarray, reduce: _Reduce, heads: int, pool: str, activation: str
) -> OracleResult:
    """A timm ViT with `reduce` between each block's attention and its MLP."""
    if pool not in ("token", "avg") or activation not in _ACTIVATIONS:
        raise ValueError(f"unknown option: {pool=}, {activation=}")
    x = (_embed_distilled if "dist_token" in w else _embed)(w, np.asarray(image, dtype=np.float64))
    size, counts, margin = np.ones(len(x)), [], math.inf
    for index in range(_depth(w)):
        block = f"blocks.{index}"
        update, u, keys = _attention(w, block, x, size, heads)
        t, near = reduce(index, _Tokens((x + update) * size[:, None], size, u, keys))
        if t.u[0] != math.inf:
            raise ValueError(f"{block} leaves the class token out of row 0: that is undefined")
        size, margin = t.size, min(margin, near)
        counts.append(len(size))
        x = _mlp(w, block, t.sums / size[:, None], activation)
    logits = _classify(w, x, size, pool)
    _check_read(w)
    return OracleResult(logits, tuple(counts), margin)


def _classify(w: _Weights, x: np.ndarray, size: np.ndarray, pool: str) -> np.ndarray:
    """Final norm, pooling and head; of a distilled model the mean of both heads."""
    x = w.norm("norm", x)
    if "dist_token" in w:
        return np.asarray((w.linear("head", x[:1]) + w.linear("head_dist", x[1:2]))[0] / 2)
    pooled = x[:1] if pool == "token" else _mean_of_patches(x[1:], size[1:])
    return np.asarray(w.linear("head", w.norm("fc_norm", pooled))[0])


def run_fixed(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    family: str,
    merge: Sequence[int] | None,
    prune: Sequence[int] | None,
    heads: int,
    eps: float = 1e-6,
    pool: str = "token",
    activation: str = "gelu",
) -> OracleResult:
    """Run the fixed-rate family m, p, mp or pm on one image [3, height, width].

    A step takes min(r, (N - 1) // 2) of the N tokens it sees, with r its entry for this block. With
    `dist_token` (only m): distilled DeiT, (N - 2) // 2. Where all of a block's steps take none, it
    leaves even the order; where another step takes some, pruning sorts also if it takes none.

    The result's margin is the smallest of: for a merge the gap from the last source merged to the
    next best one (0 on a tie), and a merging source's gap from its best to its second-best partner
    when > 0; for a prune the gaps > 0 between neighbours in the sorted importances, from the first
    token after the class to the first one dropped. Raises what `oracle.run` does.
    """
    w = _Weights(weights, eps)
    distilled, rates = "dist_token" in w, {"merge": list(merge or ()), "prune": list(prune or ())}
    if family not in _FIXED or (distilled and (family, pool) != ("m", "token")):
        raise ValueError(f"unknown or impossible here: {family=}, {pool=}")
    for step in _FIXED[family].split():
        _check_list(step, rates[step], _depth(w), 0)

    def reduce(index: int, t: _Tokens) -> tuple[_Tokens, float]:
        margin, left, taken = math.inf, len(t.u), {}
        for step in _FIXED[family].split():
            taken[step] = min(rates[step][index], (left - (2 if distilled else 1)) // 2)
            left -= taken[step]
        for step, r in taken.items() if any(taken.values()) else ():
            if step == "prune":
                t, near = _prune_last(t, r)
            elif r > 0:
                t, near = _merge_best(t, r, distilled, by_score=family == "mp")
            else:
                continue
            margin = min(margin, near)
        return t, margin

    return _forward(w, image, reduce, heads, pool, activation)


def run_budget(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    *,
    family: str,
    merge: Sequence[float] | None,
    prune: Sequence[float] | None,
    keep: Sequence[int],
    heads: int,
    eps: float = 1e-6,
    pool: str = "token",
    activation: str = "gelu",
) -> BudgetResult:
    """Run ltmp, ltpm, ltm or ltp on one image with at most keep[l] tokens left in block l.

    As `oracle.run`; but where more than keep[l] are left after the block's last step, the
    most important keep[l] stay, in their order: the class token, then by u, of which a destination
    has the maximum of its parts in every family. Raises what `oracle.run` does.
    """
    w = _Weights(weights, eps)
    thresholds = {"merge": list(merge or ()), "prune": list(prune or ())}
    if family not in _LEARNED or "dist_token" in w:
        raise ValueError(f"unknown or impossible here: {family=}")
    for step in _LEARNED[family].split():
        _check_list(step, thresholds[step], _depth(w))
    _check_list("keep", keep, _depth(w), 1)
    overflow = []

    def reduce(index: int, t: _Tokens) -> tuple[_Tokens, float]:
        margin = math.inf
        for step in _LEARNED[family].split():
            apply = _merge_above if step == "merge" else _prune_below
            t, near = apply(t, thresholds[step][index])
            margin = min(margin, near)
        before = len(t.u)
        t, near = _fit(t, keep[index])
        overflow.append(before - len(t.u))
        return t, min(margin, near)

    result = _forward(w, image, reduce, heads, pool, activation)
    return BudgetResult(result.logits, result.counts, tuple(overflow), result.margin)

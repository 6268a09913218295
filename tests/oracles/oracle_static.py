"""Token reduction to counts known beforehand, in plain NumPy, float64, one image: slow on purpose.

`run_fixed`: the fixed-rate families m, p, mp, pm of METHOD §1 (m is ToMe, arXiv 2210.09461).
`run_budget`: the learned-threshold families with at most so many tokens left after each block.

As in `oracle`, no code is shared with the package, a weight that is not known is refused, and
each token goes through the same calls, so equal tokens score the same. Every sorting is stable:
among equal scores the lower position comes first. Letters: N tokens, P of them protected in front,
C channels, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.oracles import oracle_layers
from tests.oracles.oracle import (
    _ACTIVATIONS,
    OracleResult,
    _attention,
    _classify,
    _embed,
    _Weights,
    protected,
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
    u: np.ndarray  # [N]: importance, +inf for protected tokens
    keys: np.ndarray  # [N, D]: mean over heads
    front: int  # P

    def take(self, order: Iterable[int]) -> _Tokens:
        rows = list(order)
        kept = (self.sums[rows], self.size[rows], self.u[rows], self.keys[rows])
        return _Tokens(*kept, self.front)

    @property
    def destinations(self) -> range:
        """Odd rows behind the protected ones."""
        return range(self.front + 1 - self.front % 2, len(self.u), 2)


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
    """Positions by descending importance, the protected ones' first, in their order."""
    return sorted(range(len(t.u)), key=lambda j: -float(t.u[j]))


def _match(t: _Tokens) -> dict[int, _Match]:
    """Step 3: each source's best partner, by its position, ascending; none without destinations."""
    lengths = np.sqrt((t.keys**2).sum(axis=1, keepdims=True))
    if not lengths[t.front :].all():
        raise ValueError("a token's mean key is zero: its similarity to others is undefined")
    m = t.keys / np.where(lengths > 0, lengths, 1.0)
    found = {}
    for i in range(t.front + t.front % 2, len(m), 2):
        scores = {j: float((m[i] * m[j]).sum()) for j in t.destinations}
        if not scores:
            break
        best = max(scores.values())
        to = min(j for j in scores if scores[j] == best)
        gap = min((best - scores[j] for j in scores if j != to), default=math.inf)
        found[i] = _Match(best, to, gap)
    return found


def _merge(t: _Tokens, partners: Mapping[int, int], unmerged: Iterable[int]) -> _Tokens:
    """Step 4: add each source in `partners` to its destination; the protected stay in front."""
    sums, size, u = t.sums.copy(), t.size.copy(), t.u.copy()
    for i, to in partners.items():
        sums[to] += sums[i]
        size[to] += size[i]
        u[to] = max(u[to], u[i])
    every = _Tokens(sums, size, u, t.keys, t.front)
    return every.take([*range(t.front), *unmerged, *t.destinations])


def _merge_best(t: _Tokens, r: int, by_score: bool) -> tuple[_Tokens, float]:
    """Merge the r sources that match best; by_score: the unmerged in order of that."""
    found = _match(t)
    ranked = sorted(found, key=lambda i: -found[i].best)
    merging, rest = ranked[:r], ranked[r:]
    margin = _positive(found[i].gap for i in merging)
    if rest:
        margin = min(margin, found[merging[-1]].best - found[rest[0]].best)
    if by_score:
        margin = min(margin, _positive(found[a].best - found[b].best for a, b in pairwise(rest)))
    unmerged = rest if by_score else sorted(rest)
    return _merge(t, {i: found[i].to for i in merging}, unmerged), margin


def _prune_last(t: _Tokens, r: int) -> tuple[_Tokens, float]:
    """Sort by importance and drop the last r, which may be none."""
    ranked = _by_importance(t)
    kept = ranked[: len(ranked) - r]
    pairs = zip(kept, ranked[1:], strict=False)  # the last one lies across the cut
    return t.take(kept), _positive(float(t.u[a] - t.u[b]) for a, b in pairs if a >= t.front)


def _merge_above(t: _Tokens, threshold: float) -> tuple[_Tokens, float]:
    """Merge every source whose best score is above the threshold."""
    found = _match(t)
    if not found:
        return t, math.inf
    partners = {i: match.to for i, match in found.items() if match.best > threshold}
    near = min((abs(match.best - threshold) for match in found.values()), default=math.inf)
    unmerged = [i for i in found if i not in partners]
    return _merge(t, partners, unmerged), min(near, _positive(found[i].gap for i in partners))


def _prune_below(t: _Tokens, threshold: float) -> tuple[_Tokens, float]:
    """Keep, in order, every token whose importance is above the threshold; of none the best."""
    near = min((abs(float(v) - threshold) for v in t.u if v < math.inf), default=math.inf)
    kept = [j for j in range(len(t.u)) if t.u[j] > threshold]
    if not kept:
        first, *others = _by_importance(t)
        kept, near = [first], min(near, _positive(float(t.u[first] - t.u[j]) for j in others))
    return t.take(kept), near


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


def _mlp(w: _Weights, block: str, x: np.ndarray, activation: str) -> np.ndarray:
    """Step 6."""
    return np.asarray(x + oracle_layers.second(w, block, x, _ACTIVATIONS[activation]))


def _forward(
    w: _Weights, image: np.ndarray, reduce: _Reduce, heads: int, pool: str, activation: str
) -> OracleResult:
    """A timm ViT with `reduce` between each block's attention and its MLP."""
    if pool not in ("token", "avg") or activation not in _ACTIVATIONS:
        raise ValueError(f"unknown option: {pool=}, {activation=}")
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    size, counts, margin = np.ones(len(x)), [], math.inf
    for index in range(_depth(w)):
        block = f"blocks.{index}"
        update, u, keys = _attention(w, block, x, size, heads, activation)
        t, near = reduce(index, _Tokens((x + update) * size[:, None], size, u, keys, front))
        if not (t.u[:front] == math.inf).all() or (t.u[front:] == math.inf).any():
            raise ValueError(f"{block} leaves protected tokens elsewhere than in front")
        size, margin = t.size, min(margin, near)
        counts.append(len(size))
        x = _mlp(w, block, t.sums / size[:, None], activation)
    logits = _classify(w, x, size, pool)
    _check_read(w)
    return OracleResult(logits, tuple(counts), margin)


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

    A step takes min(r, (N - P) // 2) of the N tokens it sees, with r its entry for this block.
    Where all of a block's steps take none, it leaves even the order; where another step takes some,
    pruning sorts also if it takes none. Unmerged sources stand in order of descending similarity in
    mp, and in m where nothing is protected.

    The result's margin is the smallest of: for a merge the gap from the last source merged to the
    next best one (0 on a tie), a merging source's gap from its best to its second-best partner when
    > 0, and where their order counts the gaps > 0 between the unmerged; for a prune the gaps > 0
    between neighbours in the sorted importances, from the first token after the protected to the
    first one dropped. Raises what `oracle.run` does.
    """
    w = _Weights(weights, eps)
    front, rates = protected(w), {"merge": list(merge or ()), "prune": list(prune or ())}
    if family not in _FIXED:
        raise ValueError(f"unknown: {family=}")
    by_score = family == "mp" or (family == "m" and not front)
    for step in _FIXED[family].split():
        _check_list(step, rates[step], _depth(w), 0)

    def reduce(index: int, t: _Tokens) -> tuple[_Tokens, float]:
        margin, left, taken = math.inf, len(t.u), {}
        for step in _FIXED[family].split():
            taken[step] = min(rates[step][index], (left - front) // 2)
            left -= taken[step]
        for step, r in taken.items() if any(taken.values()) else ():
            if step == "prune":
                t, near = _prune_last(t, r)
            elif r > 0:
                t, near = _merge_best(t, r, by_score)
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
    most important keep[l] stay, in their order: the protected tokens, then by u, of which a
    destination has the maximum of its parts in every family. Raises what `oracle.run` does.
    """
    w = _Weights(weights, eps)
    thresholds = {"merge": list(merge or ()), "prune": list(prune or ())}
    if family not in _LEARNED:
        raise ValueError(f"unknown: {family=}")
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

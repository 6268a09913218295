"""What became of each patch, composed in plain NumPy: from decisions, and with the tokens.

Written from METHOD §1 alone; shares no code with the package. Letters: K tokens that are left, P of
them protected in front, n patches, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracles import oracle_layers
from tests.oracles.oracle import (
    _ACTIVATIONS,
    _STEPS,
    _attention,
    _embed,
    _merge,
    _prune,
    _Weights,
    protected,
)
from tests.oracles.oracle_positions import Form, reduced

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Owned:
    """What one image gives.

    Attributes:
        tokens: [K, C] behind the last norm.
        sizes: [K] patches of each, 1 of the protected.
        token_map: [n] the token of each patch, -1 where it was pruned.
        dense: [n, C] that token, or what it was part of when that was pruned, behind the norm.
        margin: As in `oracle`.
    """

    tokens: Array
    sizes: Array
    token_map: Array
    dense: Array
    margin: float


def composed(steps: Sequence[Sequence[Any]], choices: Any, patches: int, front: int) -> Array:
    """[n] the map by decisions alone: each token is a set of patches, behind the protected.

    Args:
        steps: Of each block, by what they do: a merge of even rows into odd ones, or else what
            leaves some of the rows, and of the others one (EViT) or nothing.
        choices: For each step whom it chose, [sources] or [rows], in which order if in another than
            their own, and of a merge into whom.
        patches: n.
        front: P.
    """
    tokens: list[set[int]] = [*(set() for _ in range(front)), *({n} for n in range(patches))]
    for actions, taken in zip(steps, choices, strict=True):
        for step, choice in zip(actions, taken, strict=True):
            chosen = choice.chosen.numpy()
            if step.action != "merge":
                order = np.flatnonzero(chosen) if choice.order is None else choice.order.numpy()
                rest = [token for token, stays in zip(tokens, chosen, strict=True) if not stays]
                tokens = [tokens[row] for row in order]
                if step.joins:
                    tokens.append(set().union(*rest))
                continue
            merging = {2 * int(source) for source in np.flatnonzero(chosen)}
            assert all(row >= front for row in merging)
            for row in merging:
                into = 2 * int(choice.partner[row // 2]) + 1
                assert into >= front
                tokens[into] = tokens[into] | tokens[row]
            even = [row for row in range(0, len(tokens), 2) if row not in merging]
            if choice.order is not None:
                assert set(even) == {2 * int(source) for source in choice.order}
                even = [2 * int(source) for source in choice.order]
            even = [row for row in even if row >= front]
            odd = [row for row in range(1, len(tokens), 2) if row >= front]
            tokens = [tokens[row] for row in (*range(front), *even, *odd)]
    places = np.full(patches, -1)
    for place, token in enumerate(tokens):
        places[list(token)] = place
    return places


def run_owned(
    weights: Mapping[str, Array],
    image: Array,
    *,
    family: str,
    merge: Sequence[float] | None,
    prune: Sequence[float] | None,
    heads: int,
    eps: float = 1e-6,
) -> Owned:
    """A ViT of timm's names under thresholds; columns of 0 and 1 beside a token are its patches."""
    w = _Weights(weights, eps)
    x, front = _embed(w, np.asarray(image, dtype=np.float64)), protected(w)
    width, patches = x.shape[1], len(x) - front
    members = np.concatenate([np.zeros((front, patches)), np.eye(patches)])
    size, margin, lost = np.ones(len(x)), math.inf, np.zeros((patches, width))
    for index in range(len({k.split(".")[1] for k in w.arrays if k.startswith("blocks.")})):
        block = f"blocks.{index}"
        update, u, keys = _attention(w, block, x, size, heads)
        sums = np.concatenate([(x + update) * size[:, None], members], axis=1)
        for step in _STEPS[family].split():
            if step == "merge":
                sums, size, u, near = _merge(sums, size, u, keys, (merge or ())[index], front)
            else:
                kept, near = _prune(u, (prune or ())[index])
                for row in set(range(len(sums))) - set(kept):
                    lost[sums[row, width:] > 0] = sums[row, :width] / size[row]
                sums, size, u, keys = sums[kept], size[kept], u[kept], keys[kept]
            margin = min(margin, near)
        x, members = sums[:, :width] / size[:, None], sums[:, width:]
        x = x + oracle_layers.second(w, block, x, _ACTIVATIONS["gelu"])
    return _owned(w, x, members, lost, front, margin)


def run_placed(
    weights: Mapping[str, Array],
    image: Array,
    form: Form,
    *,
    merges: list[float],
    prunes: list[float],
    heads: int,
    eps: float,
    activation: str,
) -> Owned:
    """The same where attention knows places."""
    w = _Weights(weights, eps)
    left = reduced(w, image, form, merges, prunes, heads, activation)
    rows, columns = form.grid
    x = np.array([token.x for token in left.tokens])
    members = np.zeros((len(x), rows * columns))
    for row, token in zip(members, left.tokens, strict=True):
        row[token.patches] = 1
    lost = np.zeros((rows * columns, x.shape[1]))
    for patch, vector in left.pruned.items():
        lost[patch] = vector
    front = sum(token.seat is None for token in left.tokens)
    return _owned(w, x, members, lost, front, left.margin)


def _owned(
    w: _Weights, x: Array, members: Array, lost: Array, front: int, margin: float
) -> Owned:  # fmt: skip
    """From tokens [K, C], their patches [K, n], and [n, C] what pruned patches were part of."""
    tokens, gone = w.norm("norm", x), w.norm("norm", lost)
    places = np.array([int(np.argmax(column)) if column.any() else -1 for column in members.T])
    dense = np.array([gone[n] if at < 0 else tokens[at] for n, at in enumerate(places)])
    sizes = members.sum(1)
    sizes[:front] = 1
    return Owned(tokens, sizes, places, dense, margin)

"""A block of attention that knows places, with merging and pruning, in plain NumPy, float64.

Written from METHOD §1 and timm's description of each form of rotary positions; one image, and a
token is the list of its patches. It shares no code with the package that it judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.oracles.oracle import _ACTIVATIONS, _Weights
from tests.oracles.oracle_layers import mlp

Place = tuple[float, float]
Angle = Callable[[int, int, Place], np.ndarray]  # block, head and place to [D / 2] angles


@dataclass(frozen=True)
class Form:
    """How attention knows places.

    Attributes:
        grid: Rows and columns of patches.
        angle: Of rotary positions.
        half: Whether channel d turns with d + D / 2, else 2d with 2d + 1.
        bias: Of relative ones, the name of a block's table, with {} for the block.
        merged: "mean" or "destination".
        rotated: Whether tokens are compared by keys that were turned.
    """

    grid: tuple[int, int]
    angle: Angle | None = None
    half: bool = False
    bias: str = ""
    merged: str = "mean"
    rotated: bool = False


@dataclass(eq=False)
class Token:
    """One token.

    Attributes:
        x: [C].
        patches: Its patches; none of a token before them.
        seat: The patch as whose token it began.
        importance: Attention received.
    """

    x: np.ndarray
    patches: list[int] = field(default_factory=list)
    seat: int | None = None
    importance: float = math.inf

    @property
    def size(self) -> int:
        """Patches that it stands for."""
        return max(1, len(self.patches))


def place(token: Token, form: Form) -> Place | None:
    """Where it lies."""
    if token.seat is None:
        return None
    chosen = token.patches if form.merged == "mean" else [token.seat]
    rows, columns = zip(*(divmod(patch, form.grid[1]) for patch in chosen), strict=True)
    return sum(rows) / len(chosen), sum(columns) / len(chosen)


def turned(x: np.ndarray, angles: np.ndarray, half: bool) -> np.ndarray:
    """[D] channels, two and two turned."""
    if half:
        left, right = np.split(x, 2)
    else:
        left, right = x[0::2], x[1::2]
    sin, cos = np.sin(angles), np.cos(angles)
    a, b = left * cos - right * sin, right * cos + left * sin
    if half:
        return np.concatenate([a, b])
    out = np.empty_like(x)
    out[0::2], out[1::2] = a, b
    return out


def bias(w: _Weights, form: Form, block: int, query: Token, key: Token) -> np.ndarray:
    """[H] of a pair, from BEiT's table, whose last three rows are the class token's."""
    table = w[form.bias.format(block)]
    if query.seat is None or key.seat is None:
        row = -1 if query.seat is key.seat else -3 if query.seat is None else -2
        return np.asarray(table[row])
    height, width = form.grid
    down, across = (a - b for a, b in zip(divmod(query.seat, width), divmod(key.seat, width),
                                          strict=True))  # fmt: skip
    return np.asarray(table[(down + height - 1) * (2 * width - 1) + across + width - 1])


def attention(
    w: _Weights, block: int, tokens: list[Token], heads: int, form: Form
) -> tuple[np.ndarray, np.ndarray]:
    """What it adds before any scale [N, C], and the tokens' metric [N, D]; sets importance."""
    path = f"blocks.{block}.attn"
    x = w.norm(f"blocks.{block}.norm1", np.array([token.x for token in tokens]))
    if f"{path}.q_proj.weight" in w:
        q, k, v = (w.linear(f"{path}.{part}_proj", x) for part in "qkv")
    else:
        q, k, v = np.split(w.linear(f"{path}.qkv", x), 3, axis=1)
        if f"{path}.q_bias" in w:
            q, v = q + w[f"{path}.q_bias"], v + w[f"{path}.v_bias"]
    q, k, v = (part.reshape(len(x), heads, -1) for part in (q, k, v))
    plain = k.copy()
    if form.angle is not None:
        for n, token in enumerate(tokens):
            if (where := place(token, form)) is not None:
                for head in range(heads):
                    angles = form.angle(block, head, where)
                    q[n, head] = turned(q[n, head], angles, form.half)
                    k[n, head] = turned(k[n, head], angles, form.half)
    weights = np.empty((heads, len(x), len(x)))
    for head in range(heads):
        for i, query in enumerate(tokens):
            scores = k[:, head] @ q[i, head] / math.sqrt(q.shape[2])
            scores = scores + np.log([token.size for token in tokens])
            if form.bias:
                scores = scores + [bias(w, form, block, query, key)[head] for key in tokens]
            weights[head, i] = np.exp(scores - scores.max())
            weights[head, i] /= weights[head, i].sum()
    mixed = np.stack([weights[head] @ v[:, head] for head in range(heads)], 1).reshape(len(x), -1)
    for token, value in zip(tokens, weights.mean((0, 1)), strict=True):
        token.importance = math.inf if token.seat is None else float(value)
    update = w.linear(f"{path}.proj", w.norm(f"{path}.norm", mixed))
    metric = (k if form.rotated else plain).mean(1)
    return update, metric / np.linalg.norm(metric, axis=1, keepdims=True)


def merge(tokens: list[Token], metric: np.ndarray, threshold: float) -> list[Token]:
    """Even rows into the most similar odd ones, above a threshold; those in front stay there."""
    front = sum(token.seat is None for token in tokens)
    odd = list(range(front + 1 - front % 2, len(tokens), 2))
    even = list(range(front + front % 2, len(tokens), 2))
    if not odd:
        return tokens
    stay = tokens[:front]
    for row in even:
        similar = metric[odd] @ metric[row]
        if similar.max() <= threshold:
            stay.append(tokens[row])
            continue
        source, into = tokens[row], tokens[odd[int(similar.argmax())]]
        into.x = (into.x * into.size + source.x * source.size) / (into.size + source.size)
        into.patches = into.patches + source.patches
        into.importance = max(into.importance, source.importance)
    return stay + [tokens[row] for row in odd]


def scaled(w: _Weights, name: str, x: np.ndarray) -> np.ndarray:
    """[C], as the layer of that name scales it, if there is one."""
    return x * w[name] if name in w else x


@dataclass(frozen=True)
class Left:
    """What is left of an image.

    Attributes:
        tokens: Behind the last block.
        counts: How many after each block.
        pruned: By patch, [C] the token that it was part of when that was pruned.
        margin: The smallest distance of any decision from falling otherwise.
    """

    tokens: list[Token]
    counts: tuple[int, ...]
    pruned: dict[int, np.ndarray]
    margin: float


def nearest(tokens: list[Token], metric: np.ndarray, threshold: float) -> float:
    """How near a merge is to another: sources to the threshold, and to their second best."""
    front = sum(token.seat is None for token in tokens)
    odd = [row for row in range(1, len(tokens), 2) if row >= front]
    found = [math.inf]
    for row in (row for row in range(0, len(tokens), 2) if row >= front and odd):
        first, *others = sorted((float(metric[row] @ metric[to]) for to in odd), reverse=True)
        found.append(abs(first - threshold))
        found += [first - others[0]] if others and first > threshold else []
    return min(found)


def embedded(w: _Weights, image: np.ndarray, grid: tuple[int, int]) -> list[Token]:
    """Tokens before the first block: class token, registers, patches, as far as there are any."""
    kernel = w["patch_embed.proj.weight"]
    side, (rows, columns) = kernel.shape[2], grid
    cut = image.reshape(image.shape[0], rows, side, columns, side).transpose(1, 3, 0, 2, 4)
    patches = cut.reshape(rows * columns, -1) @ kernel.reshape(len(kernel), -1).T
    if "patch_embed.proj.bias" in w:
        patches = patches + w["patch_embed.proj.bias"]
    front = [row for name in ("cls_token", "reg_token") if name in w for row in w[name][0]]
    if "pos_embed" in w:
        position = w["pos_embed"][0]
        if len(position) > len(patches):
            front[0], position = front[0] + position[0], position[1:]
        patches = patches + position
    x = w.norm("norm_pre", np.array([*front, *patches]))
    behind = x[len(front) :]
    return [Token(row) for row in x[: len(front)]] + [
        Token(row, [n], n) for n, row in enumerate(behind)
    ]


def reduced(
    w: _Weights,
    image: np.ndarray,
    form: Form,
    merges: list[float],
    prunes: list[float],
    heads: int,
    activation: str,
) -> Left:
    """One image [channels, height, width] through all blocks."""
    tokens, counts = embedded(w, image, form.grid), list[int]()
    pruned: dict[int, np.ndarray] = {}
    margin = math.inf
    for block, (theta_m, theta_p) in enumerate(zip(merges, prunes, strict=True)):
        path = f"blocks.{block}"
        update, metric = attention(w, block, tokens, heads, form)
        for token, more in zip(tokens, update, strict=True):
            token.x = token.x + scaled(w, f"{path}.gamma_1", more)
        margin = min(margin, nearest(tokens, metric, theta_m))
        merged = merge(tokens, metric, theta_m)
        margin = min(margin, *(abs(token.importance - theta_p) for token in merged))
        tokens = [t for t in merged if t.importance > theta_p]
        pruned |= {patch: t.x for t in merged if t not in tokens for patch in t.patches}
        x = np.array([token.x for token in tokens])
        update = mlp(w, f"{path}.mlp", w.norm(f"{path}.norm2", x), _ACTIVATIONS[activation])
        for token, more in zip(tokens, update, strict=True):
            token.x = token.x + scaled(w, f"{path}.gamma_2", more)
        counts.append(len(tokens))
    return Left(tokens, tuple(counts), pruned, margin)


def run(
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    form: Form,
    *,
    merges: list[float],
    prunes: list[float],
    heads: int,
    eps: float,
    pool: str,
    activation: str,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Logits [classes] of one image [channels, height, width], and the tokens of each block."""
    w = _Weights(weights, eps)
    left = reduced(w, image, form, merges, prunes, heads, activation)
    tokens = left.tokens
    x = w.norm("norm", np.array([token.x for token in tokens]))
    pooled = x[0]
    if pool == "avg":
        behind = [n for n, token in enumerate(tokens) if token.seat is not None]
        sizes = np.array([tokens[n].size for n in behind])
        pooled = (x[behind] * sizes[:, None]).sum(0) / sizes.sum()
    logits = w.linear("head", w.norm("fc_norm", pooled[None]))[0]
    if w.unread - {"rope.freqs"}:
        raise ValueError(f"unread: {sorted(w.unread)}")
    return logits, left.counts

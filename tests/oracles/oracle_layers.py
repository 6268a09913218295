"""MLPs of a ViT in plain NumPy, plain and gated (GLU, arXiv 2002.05202), for the oracles.

And blocks whose MLP runs beside attention (arXiv 2302.05442).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def mlp(w: Any, name: str, x: Array, act: Callable[[Array], Array]) -> Array:
    """Of normalised rows [N, C]; which kind it is follows from the names and shapes of `w`.

    Where one layer gives gate and value, the gate is in front (SwiGLU packed).
    """
    if f"{name}.w0.weight" in w:  # the norm stands in front
        x = w.norm(f"{name}.norm", x)
        inner = act(w.linear(f"{name}.w0", x)) * w.linear(f"{name}.w1", x)
        return np.asarray(w.linear(f"{name}.w2", inner))
    if f"{name}.fc1_g.weight" in w:
        inner = act(w.linear(f"{name}.fc1_g", x)) * w.linear(f"{name}.fc1_x", x)
    else:
        inner, taken = w.linear(f"{name}.fc1", x), w[f"{name}.fc2.weight"].shape[1]
        gated = inner.shape[1] == 2 * taken
        inner = act(inner[:, :taken]) * inner[:, taken:] if gated else act(inner)
    return np.asarray(w.linear(f"{name}.fc2", w.norm(f"{name}.norm", inner)))


def second(w: Any, block: str, x: Array, act: Callable[[Array], Array]) -> Array:
    """What a block adds behind its steps to rows [N, C]: nothing where its MLP ran before them."""
    if beside(w, block):
        return np.zeros_like(x)
    update = mlp(w, f"{block}.mlp", w.norm(f"{block}.norm2", x), act)
    return np.asarray(w.scale(f"{block}.ls2", update))


def beside(w: Any, block: str) -> bool:
    """Whether the MLP of a block runs beside attention."""
    return f"{block}.in_proj.weight" in w


def first(w: Any, block: str, x: Array) -> tuple[Array, str]:
    """Queries, keys and values of rows [N, C], side by side [N, 3C]; where the rest is named."""
    if beside(w, block):
        given = w.linear(f"{block}.in_proj", w.norm(f"{block}.in_norm", x))
        return np.asarray(given[:, -3 * x.shape[1] :]), block
    return np.asarray(w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", x))), f"{block}.attn"


def added(w: Any, block: str, x: Array, mixed: Array, act: Callable[[Array], Array]) -> Array:
    """What a block adds before its steps to rows [N, C], of which attention mixed [N, C]."""
    if not beside(w, block):
        update = w.linear(f"{block}.attn.proj", w.norm(f"{block}.attn.norm", mixed))
        return np.asarray(w.scale(f"{block}.ls1", update))
    inner = w.linear(f"{block}.in_proj", w.norm(f"{block}.in_norm", x))[:, : -3 * x.shape[1]]
    if f"{block}.mlp_bias" in w:
        inner = inner + w[f"{block}.mlp_bias"]
    if f"{block}.out_proj.weight" in w:
        update = w.linear(f"{block}.out_proj", np.concatenate([mixed, act(inner)], axis=1))
    else:
        update = w.linear(f"{block}.attn_out_proj", mixed)
        update = update + w.linear(f"{block}.mlp_out_proj", act(inner))
    return np.asarray(w.scale(f"{block}.ls", update))

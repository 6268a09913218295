"""MLPs of a ViT in plain NumPy, plain and gated (GLU, arXiv 2002.05202), for the oracles."""

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

"""Which library's names a file has: the one place that knows of all of them.

Each is a module here, found by name; one without a `KEY` is what some of them share. It tells

| | |
|---|---|
| `NAME` | what a person calls it |
| `TYPES` | `model_type` in the config.json of Hugging Face's, if it is of theirs |
| `KEY` | names of weights that only it has, a pattern of whole names |
| `tells(keys)` | whether names tell it together, which none does alone; or nothing |
| `FIRST` | its first layer and what its own classes put before it, a pattern |
| `take(weights, config, source)` | the model: `parts.Taken` |
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterable
from types import ModuleType

from ltmp_export.backbones.vit import architectures

_HERE = __name__.rpartition(".")[0]


@functools.cache
def libraries() -> tuple[ModuleType, ...]:
    """All of them, by name."""
    path = importlib.import_module(_HERE).__path__
    found = [importlib.import_module(f"{_HERE}.{m.name}") for m in pkgutil.iter_modules(path)]
    return tuple(module for module in found if hasattr(module, "KEY"))


def by_keys(keys: Iterable[str]) -> ModuleType | None:
    """The library that names of weights tell, whatever stands before them; None for timm's."""
    listed = architectures.telling(keys)
    for module in libraries():
        tells = getattr(module, "tells", lambda _: False)
        if _any(rf"{module.FIRST}\.weight", listed) and (_any(module.KEY, listed) or tells(listed)):
            return module
    return None


def _any(pattern: str, keys: list[str]) -> bool:
    """Whether one of them is such a name, with anything before it."""
    return any(map(re.compile(rf"(?:[^.]+\.)*?(?:{pattern})").fullmatch, keys))

"""Finding the faces of steps: `steps/NAME/FACE.py`; the file's name is the plug-in's name.

| face | what it holds |
|---|---|
| `step` | the dataclass, the only one that everybody knows |
| `eager` | `take(step, tokens, forced, weights)`: what PyTorch computes, one image; |
| | `choose(step, score)`: what it decides by scores; `restore(…)`, `along(…)` (also of `slots`) |
| `packed` | `write(g, step, tokens)`: the same in ONNX, images of unlike numbers of rows |
| `single` | `write(g, step, tokens)`: the same in ONNX, one image |
| `slots` | `write(g, step, tokens)`: the same in ONNX, all images with the same number of slots |
| `record` | `TENSORS`, `WORDS`, `score_name(…)`, `read(…)`: its decisions read from a file |
| `masked` | `gate(form, tokens, threshold, tau)`: the same under a mask, differentiable |
| `batched` | `take(step, tokens, weights)`: the same of a batch, equally many tokens of each |
| | image, differentiable |
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan.step import Step

_STEPS = "ltmp_export.steps"
_UNLIKE = "has no form for images of different token counts; export it static"
_MEANING = {
    "packed": _UNLIKE,
    "single": _UNLIKE,
    "slots": "has no static form",
    "masked": "cannot be trained",
    "batched": "cannot be trained",
}


@functools.cache
def by_name() -> Mapping[str, type[Step]]:
    """The classes of all steps by what files call them."""
    folders = [m.name for m in pkgutil.iter_modules(importlib.import_module(_STEPS).__path__)
               if m.ispkg]  # fmt: skip
    found = {}
    for folder in sorted(folders):
        module = importlib.import_module(f"{_STEPS}.{folder}.step")
        own = [value for value in vars(module).values() if _is_step(value, module.__name__)]
        found.update({step.on_disk: step for step in own})
    return found


def _is_step(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, Step) and value.__module__ == module


def made(values: Mapping[str, Any]) -> Step:
    """A step from what `Plan.to_json` wrote of it."""
    fields = dict(values)
    return by_name()[fields.pop("step")](**fields)


def folder(step: type[Step]) -> str:
    """The name of its folder."""
    return step.__module__.split(".")[-2]


@functools.cache
def loaded(module: str) -> ModuleType:
    """A module by its name, looked up once."""
    return importlib.import_module(module)


def face(step: type[Step], name: str) -> ModuleType:
    """A face of a step.

    Raises:
        InputError: The step does not have it.
    """
    module = f"{step.__module__.rpartition('.')[0]}.{name}"
    try:
        return loaded(module)
    except ModuleNotFoundError as err:
        if err.name != module:
            raise
        meaning = _MEANING.get(name, "is not whole")
        raise InputError(f"the step {step.on_disk} {meaning}: it has no face '{name}'") from err

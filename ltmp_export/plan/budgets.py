"""Counts for each block in a file beside the weights: by model, then by budget (DiffRate)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ltmp_export.errors import InputError

_MOST = 2**20  # tokens: far more than a model has


def chosen(text: str, budget: str | None, own: str) -> tuple[str, Mapping[str, Any]]:
    """Model and budget, for messages, and its counts.

    Args:
        text: The file.
        budget: A budget in it, or MODEL:BUDGET.
        own: What the model would be called there.

    Raises:
        InputError: The text is no such file, or has no such budget for this model.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InputError(
            f"--diffrate: no JSON ({err!s:.100}); expected model: budget: counts"
        ) from err
    models = {k: v for k, v in found.items() if isinstance(v, dict)} if type(found) is dict else {}
    if not models:
        raise InputError("--diffrate: no model with budgets in it; expected model: budget: counts")
    stated, _, wanted = (budget or "").rpartition(":")
    model = stated or (own if own in models else next(iter(models)))
    if model not in models or (not stated and model != own and len(models) > 1):
        raise InputError(
            f"--diffrate: it has the models {_listed(models)}, and this one would be "
            f"{stated or own}; state one of them, like --budget {next(iter(models))}:"
            f"{wanted or 'NAME'}"
        )
    budgets = models[model]
    if not wanted and len(budgets) == 1:
        wanted = next(iter(budgets))
    if not isinstance(budgets.get(wanted), dict):
        raise InputError(
            f"--budget {wanted or '(none)'}: {model} has the budgets {_listed(budgets)}; state one"
        )
    return f"{model}, budget {wanted}", budgets[wanted]


def _listed(names: Mapping[str, Any]) -> str:
    shown = [f"{name:.40}" for name in list(names)[:20]]
    return ", ".join(shown) + (", …" if len(names) > 20 else "") if shown else "(none)"


def counts(where: str, found: Mapping[str, Any], key: str, depth: int) -> list[int]:
    """One list: as the original writes it a text that holds it.

    Raises:
        InputError: It is missing, no list of numbers, or of another depth.
    """
    listed = found.get(key)
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            listed = None
    sound = isinstance(listed, list) and all(type(n) is int and 2 <= n <= _MOST for n in listed)
    if not isinstance(listed, list) or not sound:
        raise InputError(
            f"--diffrate: {key} of {where} is {found.get(key)!r:.60}; expected a list of whole "
            "numbers of 2 or more, the class token among them"
        )
    if len(listed) != depth:
        raise InputError(
            f"--diffrate: {key} of {where} has {len(listed)} counts; the model has {depth} blocks"
        )
    return listed

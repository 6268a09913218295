"""A thresholds-only file and the dense model its thresholds belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ltmp_export import families
from ltmp_export.checkpoint import hub
from ltmp_export.checkpoint.outline import Outline
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices

Taken = TypeVar("Taken", bound=Outline)


def with_base(
    own: Taken, choices: Choices, take: Callable[[Path], Taken]
) -> tuple[Taken, Path | None, tuple[str, ...]]:
    """Complete a thresholds-only file from its base, name and arguments included.

    Args:
        own: The file.
        choices: What the user states, the base among it.
        take: Takes the base apart, a file or `timm:NAME`.

    Returns:
        The whole, the base's file, and warnings.

    Raises:
        InputError: There is no base, it has no weights, or is another model.
    """
    base = choices.base_checkpoint
    if own.weights and base is not None:
        raise InputError(f"{own.path} holds weights of its own; drop --base-checkpoint {base}")
    if own.weights:
        return own, None, ()
    thresholds = sum(map(len, own.thresholds.values()))
    if own.trained is not None and own.trained > thresholds:
        raise InputError(
            f"{own.path} holds {thresholds} thresholds only, but its optimizer trained "
            f"{own.trained} parameters: the weights were fine-tuned, too, and no base has them; "
            "give the checkpoint from before the reduction to thresholds"
        )
    if base is None:
        raise InputError(
            f"{own.path} holds thresholds only; give the dense model's weights with "
            "--base-checkpoint FILE, or --base-checkpoint timm:NAME"
        )
    name = hub.name_in(base) if hub.names_a_model(base) else None
    dense = take(base)
    if not dense.weights:
        raise InputError(f"{base} holds no weights either; give the dense model's checkpoint")
    base_name = families.split_arch(dense.arch or name)[1]
    joined = replace(
        dense,
        arch=own.arch or base_name,  # whose thresholds these are, a base's family does not tell
        arch_in=own.arch_in if own.arch else f"{dense.arch_in or 'the name'} of the base",
        others=own.others,
        args={**dense.args, **own.args},
        configured={k: v for k, v in dense.configured.items() if k not in own.args}
        | dict(own.configured),
        thresholds=own.thresholds,
        found=(*own.found, *(f"base: {what}" for what in dense.found)),
    )
    return joined, dense.path, _doubts(own, dense, base_name, choices)


def _doubts(
    own: Outline, dense: Outline, base_name: str | None, choices: Choices
) -> tuple[str, ...]:
    """What speaks against a base. Shapes do not tell deit_small from vit_small: names do.

    Raises:
        InputError: It is another model by name, and the user has not stated which is right.
    """
    doubts = []
    if any(dense.thresholds.values()):
        doubts.append(f"{dense.path} holds thresholds of its own, which are not used")
    names = [families.split_arch(own.arch)[1], base_name]
    if names[0] and names[1] and names[0] != names[1]:
        doubts += _unlike(own, dense, names[0], names[1], choices)
    return tuple(doubts)


def _unlike(
    own: Outline, dense: Outline, mine: str, other: str, choices: Choices
) -> tuple[str, ...]:
    """What two different names of a file and its base say against them."""
    from ltmp_export.statements import timm_names  # timm takes seconds

    known = [timm_names.resolve(name) for name in (mine, other)]
    full = [
        name if found is None else found.name
        for name, found in zip((mine, other), known, strict=True)
    ]
    told = f"{own.path} is of {full[0]}, the base {dense.path} is {full[1]}"
    if full[0].partition(".")[0] == full[1].partition(".")[0]:
        configs = [None if found is None else found.config for found in known]
        same = len({(c.mean, c.std) for c in configs if c is not None}) < 2
        return () if same else (f"{told}: images are prepared as for the first",)
    if choices.model is None and all(known):
        raise InputError(f"{told}; give the weights of {full[0]}, or state the name with --model")
    return (told,)

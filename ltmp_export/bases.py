"""A thresholds-only file and the dense model its thresholds belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ltmp_export import hub
from ltmp_export.choices import Choices
from ltmp_export.errors import InputError
from ltmp_export.identity import split_arch
from ltmp_export.outline import Outline

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
    base_name = split_arch(dense.arch or name)[1]
    joined = replace(
        dense,
        arch=own.arch or base_name,  # whose thresholds these are, a base's family does not tell
        arch_in=own.arch_in if own.arch else f"{dense.arch_in or 'the name'} of the base",
        others=own.others,
        args={**dense.args, **own.args},
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
    names = [split_arch(own.arch)[1], base_name]
    mine, other = (None if name is None else name.split(".")[0] for name in names)
    if mine and other and mine != other:
        from ltmp_export import timm_names  # timm takes seconds

        known = [None if name is None else timm_names.resolve(name) for name in names]
        mine, other = (
            name if of_timm is None else of_timm.name.split(".")[0]
            for name, of_timm in zip(names, known, strict=True)
        )
        told = f"{own.path} is of {mine}, the base {dense.path} is {other}"
        if mine == other:
            return tuple(doubts)
        if choices.model is None and all(known):
            raise InputError(f"{told}; give the weights of {mine}, or state the name with --model")
        doubts.append(told)
    return tuple(doubts)

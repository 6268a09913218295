"""The reduction that a training script's arguments, or a user's statements, tell of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltmp_export import families
from ltmp_export.checkpoint import scripts
from ltmp_export.checkpoint.frozen import Frozen
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.work import share
from ltmp_export.statements.choices import WAYS, Choices

if TYPE_CHECKING:
    from torch import Tensor

    from ltmp_export.checkpoint.contents import Contents

COSTS_MORE = "the method's own products cost more than fewer tokens save"
_OF_TRAINING = "reduction_target"  # an argument of training, not of what became of it


def from_stated(
    path: Path, contents: Contents, family: Family, choices: Choices, vit: Geometry
) -> Frozen:
    """The plan that the user states, or else the arguments of a file that calls itself so."""
    if family.from_stated is None:
        raise ValueError(f"nothing can be stated of family {family.name}")
    place = partial(family.from_stated, str(path), vit)
    return placed(path, contents, family, choices, vit, place)


def placed(
    path: Path,
    contents: Contents,
    family: Family,
    choices: Choices,
    vit: Geometry,
    place: Callable[..., Placed],
) -> Frozen:
    """The plan of what is stated, see `from_stated`, by what the family makes of it."""
    values, told = _values(path, contents, family, choices, vit)
    try:
        found = place(**values)
    except InputError as err:
        why = str(err).removeprefix(f"{path}: ")
        raise InputError(
            f"{path}: its args, {', '.join(told)}: {why}" if told else str(err)
        ) from err
    blocks = tuple(found.blocks.get(block, ()) for block in range(vit.depth))
    parameters = _tensors(found.parameters)
    plan = Plan(
        family.name, blocks, found.before, parameters, found.stated, pool_sizes=found.pool_sizes
    )
    doubts = (*found.warnings, *_overruled(contents.args, family, choices))
    reduces = plan.counted and not plan.ends and (found.blocks or found.before)
    if reduces and (cost := share(vit, plan)) >= 1.0:
        doubts += (f"{cost:.1%} of the dense multiply-accumulates: {COSTS_MORE}",)
    return Frozen(plan, (*told, *found.found), found.assumed, doubts)


def _values(
    path: Path, contents: Contents, family: Family, choices: Choices, vit: Geometry
) -> tuple[dict[str, Any], list[str]]:
    """What is stated by the names of `Choices`, and what of it the file says, for a person."""
    said, script = Choices(), contents.script
    if script is not None and script.family == family.name:
        own = {name: getattr(choices, name, None) for name in family.stated}
        ways = WAYS if any(own.get(way) is not None for way in WAYS) else ()
        open_ones = [n for n, value in own.items() if value is None and n not in ways]
        position = contents.weights.get("pos_embed")
        trained = None if position is None else position.shape[1] - vit.prefix
        found = script.of(vit.tokens - vit.prefix, trained)
        values = own | {n: found.get(n) for n in open_ones}
        told = [f"{a} {script.said[n]} (args)" for n, a in script.where.items() if n in open_ones]
        return values, told
    if families.split_arch(contents.arch)[0] == family.name:
        open_ones = [name for name in family.stated if getattr(choices, name, None) is None]
        said = _arguments(path, contents.args, open_ones)
    stated = choices.over(said)
    values = {name: getattr(stated, name, None) for name in family.stated}
    told = [
        f"{n} {v} (args)"
        for n, v in values.items()
        if v is not None and getattr(choices, n) is None
    ]
    return values, told


def _overruled(args: Mapping[str, Any], family: Family, choices: Choices) -> Iterator[str]:
    """A warning for each switch that the user wants otherwise than the file's arguments say."""
    for name in family.stated:
        said, asked = scripts.plain(args.get(name)), getattr(choices, name, None)
        if type(said) is bool and type(asked) is bool and said != asked:
            yield f"{name} {asked} as asked, though the file's args say {said}"


def _tensors(parameters: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
    """As float32; PyTorch, whose import takes seconds, only where there are any."""
    if not parameters:
        return {}
    import torch

    return {n: torch.tensor(values, dtype=torch.float32) for n, values in parameters.items()}


def _arguments(path: Path, args: Mapping[str, Any], names: Sequence[str]) -> Choices:
    """What a file's arguments say of these `Choices`.

    Raises:
        InputError: A value is of another kind.
    """
    said = Choices()
    for name in names:
        if name == _OF_TRAINING or not hasattr(said, name) or args.get(name) is None:
            continue  # the target is that of training
        value = scripts.plain(args[name])
        listed = tuple(value) if isinstance(value, list) else value
        try:
            said = Choices.from_json({name: listed}).over(said)
        except (ValueError, TypeError) as err:
            raise InputError(f"{path}: args.{name} is {value!r:.80}; {err!s:.80}") from err
    return said

"""Where merged tokens lie, and what similarity knows of places: as stated, or as assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltmp_export.checkpoint.frozen import Frozen
from ltmp_export.errors import InputError
from ltmp_export.plan import positions
from ltmp_export.plan.geometry import Geometry
from ltmp_export.statements.choices import Choices

_FLAGS = {"merged_position": "--merged-position", "metric_position": "--metric-position"}
_KNOWN = {"merged_position": positions.MERGED, "metric_position": positions.METRIC}


def placed(
    path: Path, frozen: Frozen, args: Mapping[str, Any], choices: Choices, geometry: Geometry
) -> Frozen:
    """A plan that says what becomes of places, of a network whose attention knows of them.

    Args:
        path: The file, for messages.
        frozen: The plan, and what is to be said of it.
        args: The file's own words.
        choices: What the user states.
        geometry: Of the network.

    Raises:
        InputError: Something is stated that there is not.
    """
    kind = getattr(geometry, "positions", "")
    stated = {key: getattr(choices, key) for key in _FLAGS}
    for key, value in stated.items():
        if value is not None and value not in _KNOWN[key]:
            raise InputError(f"{_FLAGS[key]} {value}: expected {', '.join(_KNOWN[key])}")
    if kind == positions.RELATIVE:
        if stated["metric_position"] or stated["merged_position"] == positions.MEAN:
            raise InputError(
                f"{path} has a relative position bias, which a merged token has as its destination "
                f"has it, and similarity knows nothing of; drop {' and '.join(_FLAGS.values())}"
            )
        return frozen._replace(plan=replace(frozen.plan, merged_position=positions.DESTINATION))
    if kind != positions.ROTARY:
        if given := [flag for key, flag in _FLAGS.items() if stated[key] is not None]:
            raise InputError(f"{path} has no rotary positions; drop {' and '.join(given)}")
        return frozen
    found = {key: stated[key] or _written(args, key) for key in _FLAGS}
    usual = {"merged_position": positions.MEAN, "metric_position": positions.UNROTATED}
    assumed = {key: usual[key] for key, value in found.items() if value is None}
    merged, metric = (str(found[key] or usual[key]) for key in _FLAGS)
    plan = replace(frozen.plan, merged_position=merged, metric_position=metric)
    if all(step.restores for steps in plan.blocks for step in steps):  # nothing is elsewhere
        return frozen._replace(plan=plan)
    return frozen._replace(plan=plan, assumed={**frozen.assumed, **assumed})


def _written(args: Mapping[str, Any], key: str) -> str | None:
    """What a file of this tool says."""
    value = args.get(key)
    return value if value in _KNOWN[key] else None

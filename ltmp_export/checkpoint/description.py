"""What a checkpoint says of its model beside the weights: names, arguments, a config.json.

All in the words of timm's training script, see `statements.gather`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ltmp_export.statements.gather import CONFIG

_NAMES = ("model", "model_name", "arch", "architecture")
_LONGEST_NAME = 200  # characters


def is_name(value: Any) -> bool:
    """A name that can be shown."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def origin(top: Mapping[Any, Any]) -> list[str]:
    """What a checkpoint of this tool says of how it was made."""
    told = top.get("ltmp")
    if not isinstance(told, Mapping):
        return []
    command, source, versions = (told.get(key) for key in ("command", "source", "versions"))
    file = source.get("file") if isinstance(source, Mapping) else None
    version = versions.get("ltmp") if isinstance(versions, Mapping) else None
    if not all(map(is_name, (command, file, version))):
        return []
    return [f"made by ltmp {command} {version} from {file}"]


def arguments(top: Mapping[Any, Any]) -> dict[str, Any]:
    """The training script's arguments, those that say something.

    Of timm's script `gp` says something, too, where it is None: pooling is as the model has it.
    """
    found: dict[str, Any] = {}
    for key in ("hyper_parameters", "args"):
        args = top.get(key)
        if isinstance(args, argparse.Namespace):
            args = vars(args)
        if isinstance(args, Mapping):
            told = {k: v for k, v in args.items() if isinstance(k, str)}
            found |= {k: v for k, v in told.items() if v is not None or k == "gp"}
    return found


def names(
    top: Mapping[Any, Any], args: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """What a file calls its model, by the place where it does, the surest first."""
    told = {"arch": top.get("arch")} | {f"args.{key}": args.get(key) for key in _NAMES}
    return told | {CONFIG: config.get("architecture")}


def trained(top: Mapping[Any, Any]) -> int | None:
    """Parameters in the optimizer's groups that had a learning rate."""
    states = [top.get("optimizer"), *(_listed(top.get("optimizer_states")))]
    groups = [
        group
        for state in states
        if isinstance(state, Mapping)
        for group in _listed(state.get("param_groups"))
        if isinstance(group, Mapping)
    ]
    if not groups:
        return None
    return sum(
        len(_listed(group.get("params")))
        for group in groups
        if group.get("initial_lr", group.get("lr")) != 0
    )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Timm's configuration on the Hub, in the words of its training script."""
    found: dict[str, Any] = {}
    for part in ("pretrained_cfg", "model_args"):
        if isinstance(config.get(part), dict):
            found |= config[part]
        if not found.get("usual_size"):  # of the weights that it began with
            size = found.pop("input_size", None)
            found["usual_size"] = size[1:] if isinstance(size, list) and len(size) == 3 else None
    found |= {key: config[key] for key in ("num_classes", "label_names") if key in config}
    pool = config.get("global_pool", found.get("global_pool"))
    return {k: v for k, v in (found | {"gp": pool}).items() if v is not None}

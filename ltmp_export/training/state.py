"""A run between two of its steps, in a file beside its output, so that it can be resumed.

A safetensors file: what learns, the optimiser's moments, and the history; in its metadata what the
run was started with. A resumed run takes the very steps that an uninterrupted one takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.training import history
from ltmp_export.training.goal import Goal
from ltmp_export.training.loop import Trainer
from ltmp_export.training.record import Record

SUFFIX = ".state"
_SIGNATURE, _SCALER = "ltmp.run", "ltmp.scaler"


@dataclass(frozen=True)
class Saved:
    """A state read back.

    Attributes:
        path: The file.
        tensors: By name, see `write`.
        metadata: As written.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def beside(output: Path) -> Path:
    """The state's file of a run that writes `output`."""
    return output.with_name(output.name + SUFFIX)


def write(
    path: Path, trainer: Trainer[Goal], records: Sequence[Record], run: Mapping[str, Any]
) -> None:
    """Save the state after the last of `records`, whole or not at all.

    Args:
        path: The file.
        trainer: The run.
        records: Its steps up to now.
        run: What it was started with, as plain values.
    """
    tensors = dict(_learning(trainer)) | {"history": history.to_tensor(records)}
    for optimizer, parameter, prefix in _adaptive(trainer):
        tensors |= {prefix + kind: value for kind, value in optimizer.state[parameter].items()}
    scaler = json.dumps(trainer.scaler.state_dict())
    metadata = {_SIGNATURE: json.dumps(run, sort_keys=True), _SCALER: scaler}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    disk.write_bytes(path, save(whole, metadata))


def read(path: Path, run: Mapping[str, Any]) -> Saved:
    """Read a state back.

    Raises:
        InputError: There is none, it is damaged, or of a run that was started otherwise.
    """
    disk.require_file(path, "the state of an interrupted run; start it without --resume")
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stored = json.loads(metadata[_SIGNATURE])
        differing = [key for key in run if stored.get(key) != run[key]]
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as err:
        raise InputError(f"{path} is no state of a run ({err}); start without --resume") from err
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} is of a run with {key} {_shown(stored.get(key))}, not {_shown(run[key])}; "
            "resume it as it was started, or start anew without --resume"
        )
    return Saved(path, tensors, metadata)


def restore(saved: Saved, trainer: Trainer[Goal]) -> list[Record]:
    """Put a trainer into a saved state; the steps up to there.

    Raises:
        InputError: The state is not of this model.
    """
    try:
        goal = trainer.goal
        records = history.from_tensor(
            saved.tensors["history"], tuple(goal.thresholds()), goal.terms
        )
        _require_course(records, trainer)
        with torch.no_grad():
            for name, value in _learning(trainer):
                value.copy_(_shaped(saved.tensors[name], value))
        if goal.thresholds() != records[-1].thresholds:
            raise ValueError("its thresholds are not those of its last step")
        for optimizer, parameter, prefix in _adaptive(trainer):
            moments = {
                kind: _shaped(saved.tensors[prefix + kind], parameter).to(parameter.device)
                for kind in ("exp_avg", "exp_avg_sq")
            }
            optimizer.state[parameter] = {"step": saved.tensors[prefix + "step"], **moments}
        trainer.scaler.load_state_dict(json.loads(saved.metadata[_SCALER]))
    except (LookupError, ValueError, RuntimeError, TypeError) as err:
        raise InputError(
            f"{saved.path} is not of this model ({err}); start without --resume"
        ) from err
    trainer.schedule(len(records) - 1)
    return records


def _require_course(records: Sequence[Record], trainer: Trainer[Goal]) -> None:
    """The steps from the first on, no more than there are, with thresholds that are some."""
    numbers = [record.step for record in records]
    if numbers != list(range(len(records))) or not 0 < len(records) <= trainer.course.total:
        raise ValueError(f"its history has {len(records)} steps that are none of this run")
    last = [value for values in records[-1].thresholds.values() for value in values]
    if not all(0.0 <= value <= 1.0 for value in last):
        raise ValueError("a threshold is outside [0, 1]")


def _shaped(stored: Tensor, like: Tensor) -> Tensor:
    if stored.shape != like.shape:
        raise ValueError(f"a tensor {list(stored.shape)} in place of {list(like.shape)}")
    return stored


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _learning(trainer: Trainer[Goal]) -> Iterator[tuple[str, Tensor]]:
    """What the optimisers change, and what the goal keeps."""
    for name, value in trainer.model.named_parameters():
        if value.requires_grad:
            yield name, value
    for name, value in trainer.goal.state().items():
        yield f"goal.{name}", value


def _adaptive(trainer: Trainer[Goal]) -> Iterator[tuple[torch.optim.Optimizer, Tensor, str]]:
    """The parameters of optimisers that keep moments, and what their names begin with."""
    for optimizer in trainer.goal.optimizers:
        if isinstance(optimizer, torch.optim.AdamW):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for number, parameter in enumerate(parameters):
                yield optimizer, parameter, f"adamw.{number}."

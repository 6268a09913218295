"""A checkpoint as the authors' training script saves it (METHOD §2), with where it comes from."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import timm
import torch

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError

PROVENANCE = "ltmp"  # the key that timm's saver does not have
_OTHER_WORDS = {"pool": "gp"}  # timm's argument for it


def to_bytes(
    source: Checkpoint,
    family: str,
    thresholds: Mapping[str, Sequence[float]],
    *,
    own: Mapping[str, torch.Tensor] | None = None,
    name: str | None = None,
    epoch: int = 0,
    metric: float | None = None,
    args: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> bytes:
    """The file's content; the same for the same values.

    Args:
        source: The model; its weights as they are now.
        family: A family of `families`.
        thresholds: Per kind one for each block.
        own: Weights of the reduction itself, by name.
        name: What the dense model is called; by default as in `source`.
        epoch: The last one, from 0.
        metric: Top-1 in percent, where it was measured.
        args: What training was told, in the words of timm's script.
        optimizer: Its state_dict.
        provenance: How the file was made, as plain values.

    Raises:
        InputError: The name says something else of the model than it is.
    """
    arch = f"{family}_{named(source, name)}"
    state = dict(source.model.state_dict()) | dict(own or {})
    for kind, values in thresholds.items():
        keys = (f"blocks.{block}.{kind}_masker.threshold" for block in range(len(values)))
        state |= {key: torch.tensor([value]) for key, value in zip(keys, values, strict=True)}
    content: dict[str, Any] = {"epoch": epoch, "arch": arch, "state_dict": state}
    if optimizer is not None:
        content["optimizer"] = dict(optimizer)
    content |= {"version": 2, "args": argparse.Namespace(**_args(source, arch) | dict(args or {}))}
    if metric is not None:
        content["metric"] = metric
    packages = {package: version(package) for package in ("ltmp", "torch", "timm")}
    origin = {"file": source.path.name, "sha256": source.sha256}
    content[PROVENANCE] = {**(provenance or {}), "source": origin, "versions": packages}
    written = io.BytesIO()
    torch.save({key: _detached(value) for key, value in content.items()}, written)
    return written.getvalue()


def named(source: Checkpoint, name: str | None) -> str:
    """What to call the dense model: a name of timm tells more than a word, and must stay true.

    Raises:
        InputError: The name says something else of the model than it is.
    """
    own = source.vit.name
    if name is None or name == own:
        return own
    for known in (own, name):
        if timm.is_model(known.split(".")[0]):
            raise InputError(
                f"{source.path} is {own}, and timm knows {known}: drop --name {name}, or state "
                "the model with --model"
            )
    return name


def _args(source: Checkpoint, arch: str) -> dict[str, Any]:
    """What the file must say so that it is read as the model it is."""
    vit, preprocessing = source.vit, source.preprocessing
    height, width = vit.image_size
    values = {
        "model": arch,
        "num_classes": vit.classes,
        "img_size": height if height == width else None,
        "input_size": None if height == width else list(vit.input_size),
        "in_chans": vit.in_chans,
        "num_heads": vit.heads,
        "gp": vit.pool,
        "pool_include_prefix": vit.pool_prefix or None,
        "act": vit.activation,
        "norm_eps": vit.norm_eps,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "crop_pct": preprocessing.crop_pct,
        "interpolation": preprocessing.interpolation,
        "crop_mode": preprocessing.crop_mode,
    }
    positions = ("merged_position", "metric_position")
    values |= {key: value for key in positions if (value := getattr(source.plan, key))}
    guessed = {_OTHER_WORDS.get(key, key) for key in source.assumed}  # and stay guessed
    known = {key: value for key, value in values.items() if key not in guessed}
    return known | ({"label_names": list(source.label_names)} if source.label_names else {})


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    return {k: _detached(v) for k, v in value.items()} if isinstance(value, dict) else value


def optimizer_record(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """What was trained, as a state_dict with a number for each parameter of the authors' form.

    There every block's threshold is one; here those of a kind are a vector. Moments are left out.
    """
    groups, count = [], 0
    for optimizer in optimizers:
        vectors = isinstance(optimizer, torch.optim.SGD)
        for group in optimizer.param_groups:
            size = sum(len(p) if vectors else 1 for p in group["params"])
            words = {key: value for key, value in group.items() if key != "params"}
            groups.append(words | {"params": list(range(count, count + size))})
            count += size
    return {"state": {}, "param_groups": groups}

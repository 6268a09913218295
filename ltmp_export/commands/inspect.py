"""What a file is: a checkpoint or an exported model, described in plain values."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import features
from ltmp_export.checkpoint import hub, refusals
from ltmp_export.checkpoint.outline import Outline, locate, outline, require_floats
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import inputs
from ltmp_export.model_file import handled, reading
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan import work
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.work import dense_macs
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes import saturation
from ltmp_export.statements.choices import Choices

if TYPE_CHECKING:
    from ltmp_export.checkpoint.load import Checkpoint

# What reads checkpoints is imported where it is used: PyTorch and timm take seconds.

SCHEMA_VERSION = 1
MARGIN_SAMPLES = 100


def inspect(
    path: str | Path,
    choices: Choices | None = None,
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What a checkpoint or an exported model is, as plain values.

    A checkpoint that cannot be exported as it is (thresholds only, no thresholds, an ambiguous
    family, …) is described as far as it goes, with what is `missing`.

    Args:
        path: The file, or `timm:NAME`: told by timm's configuration, without its weights, unless
            something is asked for that takes them.
        choices: What a checkpoint does not say.
        images: A folder of pictures or an `.npz`, see `images.inputs.load_images`: measure on them
            how near the checkpoint's decisions are to their thresholds (`margins`).
        samples: Take at most so many of the images, 100 by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: It is neither, or `images` are given for anything but a whole checkpoint.
    """
    path = Path(path)
    if hub.names_a_model(path) and images is None and (choices or Choices()) == Choices():
        from ltmp_export.commands.models import described

        return described(path)
    if hub.names_a_model(path):
        name, path = hub.fetch(path)
        choices = replace(choices or Choices(), model=name)
    elif os.path.isdir(path):
        path = locate(path)
    disk.require_file(path, "a checkpoint or an ONNX model")
    if images is not None:
        return _with_margins(path, choices, Path(images), samples, progress)
    if disk.looks_like_onnx(path):
        return _describe_model(path)
    try:
        refusals.require_takeable(path, choices)
    except InputError as err:
        return _incomplete(path, choices, str(err))
    from ltmp_export.checkpoint.contents import take_apart
    from ltmp_export.checkpoint.load import load_checkpoint

    try:
        return _describe_checkpoint(load_checkpoint(path, choices))
    except InputError as err:
        return _describe_outline(path, take_apart(path, *_selected(choices)), str(err))


def _incomplete(path: Path, choices: Choices | None, missing: str) -> dict[str, Any]:
    """What a file holds that cannot be exported as it is.

    Raises:
        InputError: It is damaged, or its numbers are none to compute with.
    """
    own = outline(path, *_selected(choices))
    plain = chosen.by_keys(own.weights) == chosen.VIT
    if not plain or next(features.unsupported(own.weights), None) is None:
        require_floats(own)
    try:
        refusals.require_takeable(path, choices, dense=True)
        from ltmp_export.checkpoint.load import load_checkpoint

        dense = _describe_checkpoint(load_checkpoint(path, choices, dense=True))
    except InputError as err:
        first = "" if str(err) == missing else f"; but first: {err}"
        return _describe_outline(path, own, f"{missing}{first}")
    known = (*chosen.FACTS, "preprocessing", "told_by", "notes", "warnings", "found")
    told = {key: dense[key] for key in known if key in dense}
    return _describe_outline(path, own, missing) | told


def _selected(choices: Choices | None) -> tuple[bool | None, str | None]:
    """Whether the user wants the checkpoint's own averaged weights, and which classifier."""
    if choices is None or choices.base_checkpoint:
        return None, None
    return choices.use_ema, choices.head_name


def _with_margins(
    path: Path,
    choices: Choices | None,
    images: Path,
    samples: int | None,
    progress: Progress,
) -> dict[str, Any]:
    if disk.looks_like_onnx(path):
        raise InputError(
            f"{path} is an exported model; margins (--images) are measured on its checkpoint"
        )
    refusals.require_takeable(path, choices)
    from ltmp_export.checkpoint.load import load_checkpoint
    from ltmp_export.parity import margins

    checkpoint = load_checkpoint(path, choices)
    count = MARGIN_SAMPLES if samples is None else samples
    chosen = inputs.load_images(images, checkpoint.geometry, checkpoint.preprocessing, count)
    measured = margins.margins(checkpoint, chosen, progress)
    described = _describe_checkpoint(checkpoint)
    warnings = [*described["warnings"], *chosen.remarks]
    return described | {"margins": measured.to_json(), "warnings": warnings}


def _describe_outline(path: Path, contents: Outline, missing: str) -> dict[str, Any]:
    """What a readable file holds that is not, or not alone, a whole model."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "incomplete checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": disk.sha256(path),
        "arch": contents.arch,
        "found": list(contents.found),
        "tensors": len(contents.weights),
        "parameters": sum(math.prod(tensor.shape) for tensor in contents.weights.values()),
        "thresholds": {kind: dict(sorted(v.items())) for kind, v in contents.thresholds.items()},
        "missing": missing,
    }


def _describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    parameters = sum(p.numel() for p in checkpoint.model.parameters())
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "checkpoint",
        "path": str(checkpoint.path),
        "bytes": checkpoint.path.stat().st_size,
        "sha256": checkpoint.sha256,
        "arch": checkpoint.arch,
        **_describe_plan(checkpoint.plan, checkpoint.geometry),
        **chosen.to_facts(checkpoint.geometry),
        "parameters": parameters,
        "dense_gmacs": dense_macs(checkpoint.geometry) / 1e9,
        "preprocessing": asdict(checkpoint.preprocessing),
        "choices": checkpoint.choices.to_json(),
        "found": list(checkpoint.found),
        "told_by": {key: answer._asdict() for key, answer in checkpoint.answers.items()},
        "notes": list(checkpoint.notes),
        "warnings": list(checkpoint.warnings),
    }


def _describe_model(path: Path) -> dict[str, Any]:
    exported = read_exported(path)
    model = exported.proto.graph
    operators = Counter(map(handled.kind, model.node))
    products = saturation.products(exported.proto)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "model",
        "path": str(path),
        "bytes": path.stat().st_size + reading.bytes_beside(path),
        **_describe_plan(exported.plan, exported.geometry),
        **chosen.to_facts(exported.geometry),
        "dense_gmacs": dense_macs(exported.geometry) / 1e9,
        "preprocessing": asdict(exported.preprocessing),
        "precision": exported.precision.to_json(),
        "products": None if products is None else asdict(products),
        "opset": exported.opset,
        "ir_version": exported.proto.ir_version,
        "inputs": [
            _describe_value(value) for value in (exported.front or exported.proto).graph.input
        ],
        "outputs": [_describe_value(value) for value in model.output],
        "nodes": len(model.node),
        "operators": dict(sorted(operators.items())),
        "notes": list(exported.notes),
        "remarks": handled.remarks(exported.proto),
        "metadata": exported.metadata,
    }


def _describe_plan(plan: Plan, geometry: Geometry) -> dict[str, Any]:
    """Family and steps; tokens and work where no image has a say in them."""
    return {
        "family": plan.family,
        "mode": "static" if plan.static else "dynamic",
        "thresholds": plan.thresholds(),
        "plan": plan.to_json(),
        "tokens": work.counts(geometry, plan) if plan.counted else None,
        "outgoing": work.outgoing(geometry, plan),
        "keep_tokens": plan.keep,
        "macs_share": work.share(geometry, plan) if plan.static else None,
    }


def _describe_value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
    known = tensor.elem_type in onnx.TensorProto.DataType.values()
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if known else "unknown"
    return {"name": value.name, "type": kind, "shape": shape}

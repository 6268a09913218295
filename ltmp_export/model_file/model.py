"""Checkpoints and ONNX files: writing one with its metadata (METHOD §3), reading it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray

from ltmp_export.backbones import chosen
from ltmp_export.errors import InputError
from ltmp_export.images.preprocessing import CENTER, Preprocessing
from ltmp_export.model_file import handled, pictured, reading
from ltmp_export.model_file.validate import validate
from ltmp_export.plan import outputs
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.linears import rounded
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit, require_vit
from ltmp_export.precision.formats import Precision
from ltmp_export.runtimes import opsets
from ltmp_export.statements import gather, wishes
from ltmp_export.statements.choices import Choices

if TYPE_CHECKING:
    from ltmp_export.checkpoint.load import Checkpoint

SCHEMA = "3"

# What parsing metadata that anyone may have written raises.
_DAMAGED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class ExportedModel:
    """A model file of this tool, as its metadata describes it.

    Attributes:
        path: The file.
        proto: The parsed model, weights included.
        plan: Family and steps of each block, without PatchMerger's weights.
        geometry: Of the model, whatever network it is.
        preprocessing: How images become inputs.
        checkpoint_sha256: Digest of the checkpoint it was exported from.
        label_names: Class names, where the checkpoint knew them.
        choices: What was stated about the checkpoint at the export.
        opset: Declared version of the standard domain.
        precision: In which numbers it computes.
        metadata: All `metadata_props` as written.
        assumed: What nothing told at the export, see `checkpoint.load.Checkpoint`.
        front: Of a file that takes pictures, what prepares them; `proto` is then what follows.
    """

    path: Path
    proto: onnx.ModelProto = field(repr=False)
    plan: Plan
    geometry: Geometry
    preprocessing: Preprocessing
    checkpoint_sha256: str
    label_names: tuple[str, ...] | None
    choices: Choices
    opset: int
    precision: Precision
    metadata: dict[str, str] = field(repr=False)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    front: onnx.ModelProto | None = field(default=None, repr=False)

    @property
    def vit(self) -> Vit:
        """The geometry of a ViT.

        Raises:
            InputError: It is another network.
        """
        return require_vit(self.geometry, self.path, "what is asked for")

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it gives, of `plan.outputs`."""
        return tuple(value.name for value in self.proto.graph.output if value.name in outputs.KNOWN)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed at the export, for a person."""
        return gather.spoken(self.assumed)


def to_onnx(
    checkpoint: Checkpoint,
    *,
    opset: int,
    batch_size: int | None = None,
    outputs: Sequence[str] | None = None,
    token_counts: bool = False,
    precision: Precision | None = None,
) -> onnx.ModelProto:
    """Write a checkpoint as a validated ONNX model.

    Args:
        checkpoint: What to write.
        opset: Version of the standard domain.
        batch_size: 1 for a graph that takes single images, None for one that takes any batch.
        outputs: What it gives, see `plan.outputs`; what timm's model gives by default.
        token_counts: Add the output `token_counts` int64 [batch, depth].
        precision: In which numbers it computes, float32 by default. For int8 its layers must be
            known, see `calibration.quantise.prepare`.

    Raises:
        InputError: The opset is out of range, or the batch size something else.
        ExportError: The graph is not what it must be.
    """
    wishes.require_batch_size(batch_size)
    precision = precision or Precision()
    opsets.require(opset, precision, checkpoint.geometry.activation, checkpoint.geometry.kind)
    model: onnx.ModelProto = _lower(checkpoint.geometry).lower(
        checkpoint.geometry,
        checkpoint.plan,
        weights_of(checkpoint),
        opset=opset,
        batch_size=batch_size,
        outputs=outputs,
        token_counts=token_counts,
        precision=precision,
        metadata=_metadata(checkpoint, opset, precision),
    )
    validate(model, opset)
    return model


def half_places(
    checkpoint: Checkpoint,
    *,
    opset: int,
    batch_size: int | None,
    outputs: Sequence[str],
    precision: Precision,
) -> dict[str, str]:
    """`lower.half_places` of a checkpoint."""
    geometry, weights = checkpoint.geometry, weights_of(checkpoint)
    places: dict[str, str] = _lower(geometry).half_places(
        geometry, checkpoint.plan, weights, opset=opset, batch_size=batch_size, outputs=outputs,
        precision=precision,
    )  # fmt: skip
    return places


def _lower(geometry: Geometry) -> ModuleType:
    """What writes graphs of a network."""
    return chosen.module(geometry.kind, "lower")


def weights_of(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """What a graph is made of, by timm's names: the checkpoint's own memory where that has it."""
    tensors = chosen.arrays(checkpoint.model) | dict(checkpoint.plan.parameters)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _metadata(checkpoint: Checkpoint, opset: int, precision: Precision) -> dict[str, str]:
    vit, preprocessing = checkpoint.geometry, checkpoint.preprocessing
    packages = ("ltmp", "torch", "timm", "onnx", "onnxruntime")
    words: dict[str, Any] = {
        "ltmp.schema": SCHEMA,
        "ltmp.family": checkpoint.plan.family,
        "ltmp.thresholds": checkpoint.plan.thresholds(),
        "ltmp.plan": checkpoint.plan.to_json(),
        "ltmp.checkpoint_sha256": checkpoint.sha256,
        "ltmp.base_sha256": checkpoint.base_sha256,
        "ltmp.choices": checkpoint.choices.to_json(),
        "ltmp.assumed": checkpoint.assumed,
        "ltmp.opset": opset,
        "ltmp.precision": precision.to_json(),
        "ltmp.versions": {package: version(package) for package in packages},
        **chosen.to_metadata(vit),
        "architecture": vit.name,
        "input_size": vit.input_size,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": preprocessing.crop_pct,
        "interpolation": preprocessing.interpolation,
        "crop_mode": preprocessing.crop_mode,
        "num_classes": vit.classes,
    }
    if checkpoint.label_names is not None:
        words["label_names"] = checkpoint.label_names
    known = {key: value for key, value in words.items() if value is not None}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in known.items()}


def read_exported(path: Path) -> ExportedModel:
    """Parse a file this tool exported.

    Raises:
        InputError: It is not ONNX, or its metadata are not this tool's.
    """
    model = reading.read(path)
    words = {entry.key: entry.value for entry in model.metadata_props}
    if not all(isinstance(word, str) for pair in words.items() for word in pair):
        raise InputError(f"{path} has damaged metadata (no text); export it again")
    if words.get("ltmp.schema") != SCHEMA:
        found = words.get("ltmp.schema", "none")
        raise InputError(
            f"{path} was not exported by this version of ltmp (ltmp.schema: found {found}, "
            f"expected {SCHEMA}); export it with 'ltmp export', or give the file from before a "
            "tool dropped its metadata"
        )
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if str(opset) != words.get("ltmp.opset"):
        stated = words.get("ltmp.opset")
        raise InputError(f"{path} declares opset {opset}, its metadata {stated}; export it again")
    try:
        front = pictured.take_apart(model).front if pictured.KEY in words else None
        found = replace(_understood(path, model, words), front=front)
    except _DAMAGED as err:
        raise InputError(
            f"{path} has damaged ltmp metadata ({err!s:.200}); export it again"
        ) from err
    handled.require_precision(path, model, found.precision)
    return found


def _understood(path: Path, model: onnx.ModelProto, words: dict[str, str]) -> ExportedModel:
    """The metadata as values that fit each other."""
    vit = chosen.from_metadata({k: json.loads(words[k]) for k in chosen.KEYS if k in words})
    plan = Plan.from_json(json.loads(words["ltmp.plan"]))
    if len(plan.blocks) != vit.depth or plan.family != words["ltmp.family"]:
        raise ValueError(f"a plan of {len(plan.blocks)} blocks of family {plan.family}")
    vit.require_possible(plan)
    able = outputs.of(vit, plan)
    for name in {value.name for value in model.graph.output} & {*outputs.KNOWN}:
        if name not in able:
            raise ValueError(f"an output {name} of a model that cannot give it")
    precision = Precision.from_json(json.loads(words["ltmp.precision"]))
    layers = {layer.path for layer in rounded(vit)}
    unknown = [path for path in precision.layers if path not in layers]
    if unknown:
        raise ValueError(f"an int8 layer {unknown[0]!r}")
    places = vit.kept_places()
    unknown = [place for place in precision.kept if place not in places]
    if unknown:
        raise ValueError(f"kept in float32: {unknown[0]!r}")
    choices = Choices.from_json(json.loads(words["ltmp.choices"]))
    assumed = json.loads(words.get("ltmp.assumed", "{}"))
    if not isinstance(assumed, dict):
        raise ValueError(f"ltmp.assumed is a {type(assumed).__name__}")
    preprocessing = Preprocessing(
        mean=tuple(map(float, json.loads(words["mean"]))),
        std=tuple(map(float, json.loads(words["std"]))),
        crop_pct=float(words["crop_pct"]),
        interpolation=words["interpolation"],
        crop_mode=words.get("crop_mode", CENTER),  # files of before know no other
        assumed=() if choices.assume_defaults else tuple(assumed),
    )
    preprocessing.require_known()
    if not len(preprocessing.mean) == len(preprocessing.std) == vit.in_chans:
        raise ValueError(f"a normalisation of other than {vit.in_chans} channels")
    names = json.loads(words["label_names"]) if "label_names" in words else None
    if names is not None and (not isinstance(names, list) or len(names) != vit.classes):
        raise ValueError(f"label names of other than {vit.classes} classes")
    return ExportedModel(
        path=path,
        proto=model,
        plan=plan,
        geometry=vit,
        preprocessing=preprocessing,
        checkpoint_sha256=words["ltmp.checkpoint_sha256"],
        label_names=None if names is None else tuple(map(str, names)),
        choices=choices,
        opset=int(words["ltmp.opset"]),
        precision=precision,
        metadata=words,
        assumed=assumed,
    )

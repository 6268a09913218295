"""From a file to a `Checkpoint`: weights, frozen plan, architecture and preprocessing (METHOD §2).

What a file does not say is asked for, never guessed; what had to be assumed is in `notes`, what
looks wrong but can be used is in `warnings`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ltmp_export.backbones import chosen
from ltmp_export.backbones.built import Built
from ltmp_export.checkpoint import bases, description, freeze, heads, hub, processor, refusals
from ltmp_export.checkpoint.beside import PROCESSOR
from ltmp_export.checkpoint.contents import Contents, take_apart
from ltmp_export.checkpoint.identify import identify
from ltmp_export.errors import InputError
from ltmp_export.files import disk, memory
from ltmp_export.images import preprocessing
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit, require_vit
from ltmp_export.reference import verify_against_timm
from ltmp_export.statements import gather, timm_names
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import CONFIG, Answer


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned checkpoint, read, checked and frozen.

    Attributes:
        path: The file; inside a Hugging Face folder, the one with the weights.
        sha256: Digest of the file.
        base_sha256: Digest of the base checkpoint, where there is one.
        arch: The name the file gives itself, if any.
        plan: Family and frozen thresholds per block; "dense" for a plain ViT.
        geometry: Of the dense model, whatever network it is.
        model: timm's model with the weights, eval mode, float32.
        preprocessing: Normalisation and resize.
        label_names: Class names where the file knows them.
        choices: What the user stated.
        found: What the file is, what was taken of it, and why it is that family.
        notes: What was assumed, for a person.
        warnings: What looks wrong.
        answers: What the weights do not tell, by timm's word for it, and where it is from.
        assumed: What nothing tells and was taken as it usually is, by timm's word for it.
        contents: What else the file holds, without its weights; see `reduced`.
    """

    path: Path
    sha256: str
    base_sha256: str | None
    arch: str | None
    plan: Plan
    geometry: Geometry
    model: Any = field(repr=False)
    preprocessing: Preprocessing
    label_names: tuple[str, ...] | None
    choices: Choices
    found: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    answers: Mapping[str, Answer] = field(default_factory=dict, repr=False)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    contents: Contents | None = field(default=None, repr=False, compare=False)

    @property
    def vit(self) -> Vit:
        """The geometry of a ViT.

        Raises:
            InputError: It is another network.
        """
        return require_vit(self.geometry, self.path, "what is asked for")

    def reduced(self, choices: Choices) -> Checkpoint:
        """This dense model as a family without weights of its own reduces it, the file not read.

        Args:
            choices: What was stated when it was read, with the family and what that goes by.

        Raises:
            InputError: No family is stated, or it cannot take the model so.
        """
        family = choices.family
        if family is None or self.contents is None:
            raise InputError(f"{self.path}: state a family, and the file it is of")
        frozen = freeze.freeze(self.path, self.contents, family, choices, self.geometry)
        assumed = {**self.assumed, **frozen.assumed}
        return replace(
            self,
            plan=frozen.plan,
            choices=choices,
            found=(*self.found, f"family {family}: as --family says", *frozen.found),
            assumed=assumed,
            notes=gather.spoken(assumed),
            warnings=(*self.warnings, *frozen.warnings),
        )

    def without_classifier(self) -> Checkpoint:
        """The same model down to what a classifier is given.

        Raises:
            InputError: It is no ViT, whose features alone can be had.
        """
        model = copy.deepcopy(self.model)
        geometry = replace(self.vit, classes=0)
        model.reset_classifier(0)
        return replace(self, model=model, geometry=geometry, label_names=None)


def load_checkpoint(
    path: str | Path, choices: Choices | None = None, *, dense: bool = False, scripted: bool = False
) -> Checkpoint:
    """Read a checkpoint of a token-reducing ViT, or a plain one for a fixed-rate family.

    Args:
        path: A file of any dialect that `checkpoint.dialects` lists, a folder with Hugging Face
            files, `timm:NAME`, or thresholds only (then `choices.base_checkpoint` holds the
            weights).
        choices: What the file does not say, or what the user wants otherwise.
        dense: Take a plain ViT without thresholds as it is, too; its plan then reduces nothing.
        scripted: With `dense`, take the method all the same that a script's arguments tell.

    Raises:
        InputError: The file cannot be read or used, or something must be stated.
    """
    path, (choices, renamed_family) = Path(path), (choices or Choices()).named()
    base, pretrained = choices.base_checkpoint, hub.names_a_model(path)
    refusals.require_takeable(path, choices, dense=dense, scripted=scripted)
    if pretrained:
        name, path = hub.fetch(path)
        choices = replace(choices, model=choices.model or name)
    take = partial(take_apart, use_ema=choices.use_ema, head_name=choices.head_name)
    own = take(path) if base is None else take_apart(path, None)
    contents, base_file, doubts = bases.with_base(own, choices, lambda f: take(hub.file_of(f)))
    identity = identify(own.path, contents, choices, dense=dense, scripted=scripted)
    called = identity.model
    named = None if called.written is None else timm_names.resolve(called.written)
    args, configured = _with_hub(contents, named)
    says = gather.gather(args, choices, authors=called.authors, configured=configured)
    weights = freeze.without_own(contents.weights, identity.family)
    says = freeze.with_heads(own.path, says, identity.family, weights)
    built: Built = chosen.module(chosen.by_keys(weights, called.written), "build").build(
        freeze.used(weights, identity.family),
        called.written if named is None else named.name,
        replace(says, trained=says.trained or pretrained),
        source=str(base_file or own.path), timm_name=named, where=called.where,
    )  # fmt: skip
    frozen = freeze.freeze(own.path, contents, identity.family, choices, built.geometry)
    doubts = (*doubts, *identity.warnings, *frozen.warnings, *built.warnings)
    doubts += _contradictions(contents.args, choices, built.geometry)
    told = (*contents.found, *renamed_family, *_renamed(called.written, named))
    _require_attention(built.geometry)
    verify_against_timm(built.model, built.geometry)
    prepared = preprocessing.resolve(choices, args, built.geometry, named, configured)
    answers = {**built.answers, **prepared.answers, **_head(contents)}
    assumed = {key: one.value for key, one in answers.items() if one.assumed} | dict(frozen.assumed)
    return Checkpoint(
        path=own.path,
        sha256=disk.sha256(own.path),
        base_sha256=None if base_file is None else disk.sha256(base_file),
        arch=contents.arch,
        plan=frozen.plan,
        geometry=built.geometry,
        model=built.model,
        preprocessing=prepared.preprocessing,
        label_names=_label_names(contents.args, built.geometry),
        choices=choices,
        found=(*told, identity.reason, *frozen.found),
        answers=answers,
        assumed=assumed,
        notes=gather.spoken(assumed),
        warnings=(*doubts, *prepared.warnings),
        contents=replace(contents, weights={}, stored={}),
    )


def _head(contents: Contents) -> dict[str, Answer]:
    """The layer that was taken for the classifier, where nobody says which is."""
    if contents.head is None:
        return {}
    why = "no layer has a classifier's name"
    if contents.head != heads.NONE:
        why = "no other layer can be the classifier"
    return {"head_name": Answer(contents.head, why, True)}


def _renamed(written: str | None, named: timm_names.TimmName | None) -> list[str]:
    """What is to be said of the name that a file gives its model."""
    if named is not None:
        return [named.note] if named.note else []
    return [] if written is None else [f"{written}: no name of timm's"]


def _with_hub(
    contents: Contents, named: timm_names.TimmName | None
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The file's words, and what the Hub says of the model it began with; where they stand.

    Classes and their names are the Hub's model's, not the file's.
    """
    if named is None or not named.hub:
        return contents.args, contents.configured
    words = description.from_config(named.hub)
    theirs = {k: v for k, v in words.items() if k not in ("num_classes", "label_names")}
    own = {k: v for k, v in contents.args.items() if v is not None or k == "gp"}
    added = theirs.keys() - {k for k, v in own.items() if v is not None}
    places = dict(contents.configured) | {key: f"{CONFIG}: {key}" for key in added}
    return {**theirs, **{k: v for k, v in own.items() if k not in added}}, places


def _require_attention(geometry: Geometry) -> None:
    """Check that one image fits: the reference holds one block's attention in float64.

    Sets of a few tokens that attend among themselves always do.

    Raises:
        InputError: It takes more than the memory limit.
    """
    if not isinstance(geometry, Vit):
        return
    tokens = geometry.tokens
    size = 2 * 8 * geometry.heads * tokens**2  # logits and weights
    memory.require_memory(size, f"attention among the {tokens} tokens of one image")


def _contradictions(args: Mapping[str, Any], choices: Choices, model: Geometry) -> tuple[str, ...]:
    """A warning for each number the file states that its weights have otherwise."""
    told = []
    names = args.get("label_names")
    pairs = (
        ("num_classes", args.get("num_classes"), "classes", model.classes),
        ("label_names", len(names) if isinstance(names, (list, tuple)) else None, "classes",
         model.classes),
        ("in_chans", args.get("in_chans"), "channels", model.in_chans),
    )  # fmt: skip
    for key, stated, what, real in pairs:
        if type(stated) is int and stated != real:
            told.append(f"the file states {stated} {what} ({key}), its weights have {real}")
    size = args.get(processor.SIZE)
    if size is not None and choices.image_size is None and size != model.image_size:
        (height, width), (own_height, own_width) = size, model.image_size
        told.append(
            f"{PROCESSOR} makes images of {height}x{width}, the positions are for {own_height}x"
            f"{own_width}; --img-size {height},{width} resizes them"
        )
    return tuple(told)


def _label_names(args: Mapping[str, Any], model: Geometry) -> tuple[str, ...] | None:
    names = args.get("label_names")
    if not isinstance(names, (list, tuple)) or len(names) != model.classes:
        return None
    known = all(isinstance(name, (str, int)) for name in names)
    return tuple(map(str, names)) if known else None

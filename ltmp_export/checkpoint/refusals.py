"""What can be told of a checkpoint before PyTorch is imported, whose import takes seconds.

Of `timm:NAME` timm's configuration tells, before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ltmp_export import families
from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import facts, features, kinds, positions
from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.checkpoint import bases, freeze, hub
from ltmp_export.checkpoint.identify import Identity, identify
from ltmp_export.checkpoint.outline import Outline, outline, require_floats
from ltmp_export.errors import InputError
from ltmp_export.plan.plan import DENSE
from ltmp_export.statements import gather
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import Answer, Statements


class Told(NamedTuple):
    """A file, the whole with its base if it has one, and where the weights are."""

    own: Outline
    whole: Outline
    source: Path


def require_readable(path: Path, choices: Choices) -> Told:
    """Check that a file, with its base if it has one, holds a plain ViT or a network in stages.

    Raises:
        InputError: It cannot be read or used; the message says why and what to do.
    """
    base = choices.base_checkpoint
    own = _taken(path, choices if base is None else Choices())
    called = choices.model or own.arch
    _require_plain(own, called)
    whole, base_file, _ = bases.with_base(own, choices, lambda p: _taken(p, choices))
    if base_file is not None:
        _require_plain(replace(whole, path=base_file), called)
    return Told(own, whole, base_file or own.path)


def require_takeable(
    path: str | Path,
    choices: Choices | None = None,
    *,
    dense: bool = False,
    learn: bool = False,
    train: bool = False,
    scripted: bool = False,
) -> str:
    """Refuse what the file alone decides, or timm's configuration.

    Args:
        path: A file, a Hugging Face folder, or `timm:NAME`.
        choices: What the user states.
        dense: Whether a model without thresholds will do.
        learn: Whether thresholds are to be made for it.
        train: Whether it is to be trained, whatever that means in its family.
        scripted: Whether the method that a script's arguments tell counts even then, as in
            `identify`.

    Returns:
        The name of its family, as it is or is to become.

    Raises:
        InputError: It cannot be used; the message says why and what to do.
    """
    path, (choices, _) = Path(path), (choices or Choices()).named()
    if hub.names_a_model(path):
        choices = replace(choices, model=choices.model or hub.name_in(path))
    own, whole, source = require_readable(path, choices)
    path = own.path
    identity = identify(path, whole, choices, dense=dense, scripted=scripted)
    weights = freeze.without_own(whole.weights, identity.family)
    kind, class_token = chosen.by_keys(weights, identity.model.written), "cls_token" in weights
    weights = freeze.used(weights, identity.family)
    if kind != chosen.VIT:
        _require_other(path, kind, identity, choices, class_token, learn=learn, train=train)
        if kind not in chosen.vits() or not (learn or train):
            return identity.family
        required = freeze.require_trained if train else freeze.require_learned
        return required(path, choices.family, identity.family, class_token).name
    if whole.by_timms_names:  # names that are timm's in the file
        features.require_complete(str(source), identity.model.written, weights)
    if identity.family != DENSE:
        method = families.load(identity.family)
        freeze.require_tokens(method, class_token, path)
        freeze.require_stated(path, method, choices, whole.script)
    says = gather.gather(whole.args, choices)
    if whole.by_timms_names:
        says = freeze.with_heads(path, says, identity.family, weights)
        _require_stated(weights, says, str(source))
    if identity.model.written is None and whole.by_timms_names:
        unplaced = True if says.assume_defaults and says.unplaced is None else says.unplaced
        positions.grid(
            weights, says.stored_size, says.image_size, usual=(says.usual_size,),
            unplaced=unplaced, source=str(source),
        )  # fmt: skip
        facts.settle(weights, None, says, str(source))
    if not learn and not train:
        return identity.family
    if train:
        freeze.require_classifier(path, "head.weight" in weights)
    required = freeze.require_trained if train else freeze.require_learned
    return required(path, choices.family, identity.family, class_token).name


def _require_stated(weights: Mapping[str, Shaped], says: Statements, source: str) -> None:
    """Refuse heads and sizes of images that the shapes of weights rule out."""
    positions.require_ranks(weights)
    if says.heads is not None:
        facts.require_dividing(weights, Answer(*says.heads), source)
    size = says.image_size
    if size is not None and size != says.stored_size and not kinds.has_stem(weights):
        positions.require_whole(size, kinds.embedding(weights)[2:])


def _require_other(
    path: Path,
    kind: str,
    identity: Identity,
    choices: Choices,
    class_token: bool,
    *,
    learn: bool,
    train: bool,
) -> None:
    """Refuse what can be told of another network than a plain ViT."""
    plain = kind in chosen.vits()
    if learn and not plain:
        raise InputError(
            f"{path} is {chosen.name_of(kind)}: thresholds are made for plain ViTs alone"
        )
    if train and not plain:
        raise InputError(f"{path} is {chosen.name_of(kind)}: plain ViTs alone are trained here")
    if identity.model.written is None:
        raise InputError(
            f"{path} is {chosen.name_of(kind)}, and nothing tells which; state its name of timm's "
            "with --model"
        )
    if identity.family != DENSE:
        method = families.load(identity.family)
        if plain:
            freeze.require_tokens(method, class_token, path)
        freeze.require_stated(path, method, choices, None)


def _taken(path: Path, choices: Choices) -> Outline:
    if hub.names_a_model(path):
        return hub.configured(path)
    return outline(path, choices.use_ema, choices.head_name)


def _require_plain(own: Outline, called: str | None) -> None:
    if own.weights:
        if chosen.by_keys(own.weights, families.split_arch(called)[1]) == chosen.VIT:
            features.require_plain(str(own.path), own.weights, own.beside)
        require_floats(own)

"""Which family and which timm model a checkpoint is, and how that is known (SPEC §2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm

from ltmp_export import build, families
from ltmp_export.choices import Choices
from ltmp_export.contents import KINDS, Contents
from ltmp_export.errors import InputError
from ltmp_export.plan import DENSE
from ltmp_export.suggestions import did_you_mean, looks_like

MAKE_THEM = "; 'ltmp calibrate' and 'ltmp finetune' make thresholds"
FIXED_RATE_PREFIXES = ("m", "p", "mp", "pm")  # registered by the authors; no thresholds (SPEC §1)


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is.

    Attributes:
        family: One of `families.names()`, or "dense".
        name: timm name of the dense model, or what the file calls it; None if it does not say.
        reason: Why it is that family, for a person.
        warnings: Where the user and the file disagree.
    """

    family: str
    name: str | None
    reason: str
    warnings: tuple[str, ...]


def identify(path: Path, contents: Contents, choices: Choices, *, dense: bool = False) -> Identity:
    """Family and name, from what the user states, else from the file, else from its thresholds.

    Args:
        path: The file, for messages.
        contents: What it holds.
        choices: What the user states.
        dense: Whether a model without thresholds will do.

    Raises:
        InputError: There are no thresholds, the family has to be stated, or what is stated
            contradicts the thresholds.
    """
    present = tuple(kind for kind in KINDS if contents.thresholds[kind])
    if not present and dense:
        written, name, _, warnings = _told(path, contents, choices)
        if written and choices.model is None:
            raise InputError(
                f"{path} calls itself {contents.arch}, but holds no thresholds; if these are the "
                f"weights of a dense model, say so: --model {name}"
            )
        return Identity(DENSE, name, "a dense model: no thresholds", tuple(warnings))
    if not present:
        raise InputError(
            f"{path} holds no thresholds (blocks.N.merge_masker.threshold, …): it is a dense model "
            "or was not fine-tuned with a learned-threshold method"
            f"{looks_like(contents.weights) or MAKE_THEM}"
        )
    written, name, reason, warnings = _told(path, contents, choices)
    if written in FIXED_RATE_PREFIXES:
        raise InputError(f"{contents.arch}: fixed-rate family {written!r} is not supported")
    fitting = [f for f in families.names() if families.load(f).scalars == present]
    if choices.family is not None:
        reason = "as --family says"
    elif written is None and len(fitting) == 1:
        reason = f"the only one with {' and '.join(present)} thresholds"
    family = choices.family or written or (fitting[0] if len(fitting) == 1 else None)
    if family is None:
        raise InputError(
            f"{path}: {' and '.join(present)} thresholds fit {' or '.join(fitting)}, and the file "
            f"has no 'arch' to tell; state it with --family {'|'.join(fitting)}"
        )
    if family not in families.names():
        raise InputError(
            f"no family {family!r}; choose from {', '.join(families.names())}"
            f"{did_you_mean(family, families.names())}"
        )
    if family not in fitting:
        raise InputError(
            f"{path}: family {family} needs {' and '.join(families.load(family).scalars)} "
            f"thresholds; the file has {' and '.join(present)}"
            f"{'; to make others, give the dense weights' if dense else ''}"
        )
    if choices.family and written and choices.family != written:
        warnings.append(f"family {choices.family} as asked, though the file says {written}")
    return Identity(family, name, f"family {family}: {reason}", tuple(warnings))


def _told(
    path: Path, contents: Contents, choices: Choices
) -> tuple[str | None, str | None, str, list[str]]:
    """Family and name that file and user state, who says so, and where they disagree."""
    warnings: list[str] = []
    written, name = split_arch(contents.arch)
    reason = f"as the name {contents.arch} says"
    prefixes = {prefix for other in contents.others if (prefix := split_arch(other)[0])}
    if written and prefixes - {written} and choices.family is None:
        names = ", ".join([str(contents.arch), *contents.others])
        raise InputError(f"{path} calls itself {names}; state the family with --family")
    warnings += [f"the file calls itself {contents.arch}, but also {o}" for o in contents.others]
    if choices.model is not None:
        mine, (stated, name) = name, _stated_model(choices.model)
        if mine and name and mine.split(".")[0] != name.split(".")[0]:
            warnings.append(f"the model is {name} as asked, though the file says {mine}")
        if stated and written and stated != written:
            warnings.append(f"--model says {stated}, the file {written}; --family decides")
        if stated and not written:
            written, reason = stated, f"as --model {choices.model} says"
    return written, name, reason, warnings


def _stated_model(model: str) -> tuple[str | None, str | None]:
    stated, name = split_arch(model)
    if not timm.is_model((name or "").split(".")[0]):
        near = build.did_you_mean_model(name or "")
        raise InputError(f"timm has no model {model!r}{near}")
    return stated, name


def split_arch(arch: str | None) -> tuple[str | None, str | None]:
    """Split "ltmp_deit_small_patch16_224" into family prefix and timm name."""
    if arch is None:
        return None, None
    arch = arch.removeprefix("inference_")
    prefix, _, rest = arch.partition("_")
    if rest and prefix in (*families.names(), *FIXED_RATE_PREFIXES):
        return prefix, rest
    return None, arch

"""Which family and which timm model a checkpoint is, and how that is known (METHOD §2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ltmp_export import families
from ltmp_export.backbones import chosen
from ltmp_export.checkpoint import contradictions
from ltmp_export.checkpoint.outline import KINDS, Outline
from ltmp_export.errors import InputError
from ltmp_export.files.near_misses import did_you_mean
from ltmp_export.plan.plan import DENSE
from ltmp_export.statements import timm_listed
from ltmp_export.statements.choices import OF_FAMILIES, Choices


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is.

    Attributes:
        family: One of `families.names()`, or "dense".
        model: What the dense model is called.
        reason: Why it is that family, for a person.
        warnings: Where the user and the file disagree.
    """

    family: str
    model: ModelName
    reason: str
    warnings: tuple[str, ...]


class ModelName(NamedTuple):
    """What the dense model is called.

    Attributes:
        written: As the file or the user has it, without the family; None if nobody says.
        where: Who says so: a flag, or a place in the file.
        authors: Whether the file's own name has a family before it, as in files of the LTMP
            authors' training script.
    """

    written: str | None
    where: str = ""
    authors: bool = False


def identify(
    path: Path, contents: Outline, choices: Choices, *, dense: bool = False, scripted: bool = False
) -> Identity:
    """Family and name, from what the user states, else from the file, else from its thresholds.

    Args:
        path: The file, for messages.
        contents: What it holds.
        choices: What the user states.
        dense: Whether a model without thresholds will do.
        scripted: Whether the method that a script's arguments tell counts even then.

    Raises:
        InputError: There are no thresholds, the family has to be stated, or what is stated
            contradicts the thresholds.
    """
    present = tuple(kind for kind in KINDS if contents.thresholds[kind])
    written, model, reason, warnings = _told(path, contents, choices)
    kind = chosen.by_keys(contents.weights, model.written)
    require_backbone(path, choices.family or written, kind)
    other = _without_thresholds(path, contents, choices, written, dense, scripted or not dense)
    if other is not None:
        warnings += _overruled(other[0], written, choices, present)
        return Identity(
            other[0], model, f"family {other[0]}: {other[1] or reason}", tuple(warnings)
        )
    if not present and dense:
        if written and choices.model is None:
            raise InputError(
                f"{path} calls itself {contents.arch}, but holds no thresholds; if these are the "
                f"weights of a dense model, say so: --model {model.written}{_or_rate(written)}"
            )
        return Identity(DENSE, model, "a dense model: no thresholds", tuple(warnings))
    if not present:
        raise InputError(
            f"{path} holds no thresholds (blocks.N.merge_masker.threshold, …): it is a dense model "
            "or was not fine-tuned with a learned-threshold method"
            f"{_ways_on(contents, kind)}"
        )
    fitting = [f for f in families.learned() if families.load(f).scalars == present]
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
    if family not in fitting:
        raise InputError(
            f"{path}: family {family} needs {' and '.join(families.load(family).scalars)} "
            f"thresholds; the file has {' and '.join(present)}"
            f"{'; to make others, give the dense weights' if dense else ''}"
        )
    warnings += _overruled(family, written, choices, ())
    return Identity(family, model, f"family {family}: {reason}", tuple(warnings))


def _ways_on(contents: Outline, kind: str) -> str:
    """The commands that take a dense model of these weights."""
    if kind not in chosen.vits():
        able = [name for name in families.names() if kind in families.load(name).backbones]
        return f"; --family {'|'.join(able)} takes {chosen.name_of(kind)}" if able else ""
    return "; 'ltmp calibrate' and 'ltmp finetune' make thresholds, and --family m --r 8 needs none"


def _or_rate(family: str) -> str:
    """The other way out for a family that takes a fixed number of tokens."""
    return f"; to run it as {family}, state --r 8" if family in families.counted() else ""


def require_known(family: str) -> None:
    """Check that there is a family of that name.

    Raises:
        InputError: There is none.
    """
    if family not in families.names():
        raise InputError(
            f"no family {family!r}; choose from {', '.join(families.names())}"
            f"{did_you_mean(family, families.names())}"
        )


def require_backbone(path: Path, family: str | None, kind: str) -> None:
    """Check that a family, if there is one of that name, takes such a network.

    Raises:
        InputError: It does not.
    """
    if family not in families.names() or kind in families.load(str(family)).backbones:
        return
    able = [name for name in families.names() if kind in families.load(name).backbones]
    raise InputError(
        f"{path} is {chosen.name_of(kind)}, which family {family} does not take; "
        f"{', '.join(able) or 'no family'} does"
    )


def _without_thresholds(
    path: Path,
    contents: Outline,
    choices: Choices,
    written: str | None,
    dense: bool,
    scripted: bool,
) -> tuple[str, str | None] | None:
    """The family where it is one that has no thresholds, and why, unless because of its name.

    Raises:
        InputError: What is stated contradicts the file, or leaves the family open.
    """
    if choices.family is not None:
        require_known(choices.family)
    asked = choices.family or written
    own = families.owner(contents.weights)
    counted, script = families.counted(), contents.script
    if script is not None and choices.family in (None, script.family) and scripted:
        contradictions.require_scripted(path, choices, script, own)
        return script.family, script.reason
    if own is not None:
        contradictions.require_own(path, contents, choices, own, asked, dense)
        return own.name, "the only one with weights of such names"
    if asked in families.stated():
        method = families.load(str(asked))
        contradictions.require_taken(path, choices, method)
        contradictions.require_asked(path, method, choices)
        if choices.rate is not None:
            raise InputError(f"--r is for {', '.join(counted)}; drop it")
        return method.name, "as --family says" if choices.family else None
    if choices.merge_at is not None or choices.merge_scale is not None:
        raise InputError(
            f"{path} holds no layers of PatchMerger: drop --merge-at, --merge-scale, or state "
            f"--family {'|'.join(families.stated())}, which takes --merge-at"
        )
    if given := [name for name in OF_FAMILIES if getattr(choices, name) is not None]:
        able = "|".join(n for n in families.stated() if {*given} <= {*families.load(n).stated})
        flags = ", ".join(map(contradictions.flag, given))
        raise InputError(f"{flags}: state the family, --family {able or 'that takes them'}")
    if asked in counted and (choices.rated or not dense):
        return str(asked), "as --family says" if choices.family else None
    if choices.rated:
        raise InputError(
            f"--r and --reduction-target are for the families that take a fixed number of tokens; "
            f"state which with --family {'|'.join(counted)} (m is ToMe)"
        )
    if asked in families.names() and families.load(str(asked)).weights is not None:
        raise InputError(f"{path} holds no weights of {asked}")
    return None


def _overruled(
    family: str, written: str | None, choices: Choices, unused: tuple[str, ...]
) -> list[str]:
    """A warning where the user wants another family than the file says."""
    if choices.family and written and family != written:
        more = f"; its {' and '.join(unused)} thresholds are not used" if unused else ""
        return [f"family {family} as asked, though the file says {written}{more}"]
    if unused:
        return [f"family {family}: the file's {' and '.join(unused)} thresholds are not used"]
    return []


def _told(
    path: Path, contents: Outline, choices: Choices
) -> tuple[str | None, ModelName, str, list[str]]:
    """Family and name that file and user state, who says so, and where they disagree."""
    warnings: list[str] = []
    written, name = families.split_arch(contents.arch)
    if contents.script is not None and contents.script.names_methods:  # none of timm's
        written, name = None, None
    model = ModelName(name, contents.arch_in, authors=written is not None)
    reason = f"as the name {contents.arch} says"
    prefixes = {prefix for other in contents.others if (prefix := families.split_arch(other)[0])}
    if written and prefixes - {written} and choices.family is None:
        names = ", ".join([str(contents.arch), *contents.others])
        raise InputError(f"{path} calls itself {names}; state the family with --family")
    warnings += [f"the file calls itself {contents.arch}, but also {o}" for o in contents.others]
    if choices.model is not None:
        stated, name = families.split_arch(choices.model)
        timm_listed.require_listed(name or "")
        from ltmp_export.statements import timm_names  # timm takes seconds

        asked = timm_names.require(name or "").name
        known = None if model.written is None else timm_names.resolve(model.written)
        mine = model.written if known is None else known.name
        told = mine or ""
        if (told and told.split(".")[0] != asked.split(".")[0]) or ("." in told and told != asked):
            warnings.append(f"the model is {asked} as asked, though the file says {mine}")
        model = ModelName(name, "--model", model.authors)
        if stated and written and stated != written:
            warnings.append(f"--model says {stated}, the file {written}; --family decides")
        if stated and not written:
            written, reason = stated, f"as --model {choices.model} says"
    return written, model, reason, warnings

"""What is stated of a checkpoint and cannot be, given what its family or its script is."""

from __future__ import annotations

from pathlib import Path

from ltmp_export import families
from ltmp_export.checkpoint.outline import Outline
from ltmp_export.checkpoint.scripts import Script
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.plan import kept
from ltmp_export.statements.choices import OF_FAMILIES, Choices


def require_scripted(path: Path, choices: Choices, script: Script, own: Family | None) -> None:
    """Check what is stated of a file whose script tells its family.

    Raises:
        InputError: It contradicts the script, or the file has marks of two scripts.
    """
    method = families.load(script.family)
    if method.weights is not None and method.from_stated is None and own is None:
        raise InputError(
            f"{path}: its arguments are of family {method.name}, but it holds no weights of it"
        )
    if own is not None and own != method:
        raise InputError(
            f"{path}: its arguments are of family {method.name}, its layers of {own.name}"
        )
    require_taken(path, choices, method)
    if choices.rated and not method.counts:
        raise InputError(f"--r and --reduction-target are not for {method.name}; drop them")
    if script.doubt and choices.keep_rule is None:
        raise InputError(
            f"{path}: {script.doubt}; how many patches it keeps depends on which wrote it: state "
            f"--keep-rule {'|'.join(kept.RULES)} (zoo: int(196 · rate^i), official: a share of the "
            "patches that are there)"
        )


def require_own(
    path: Path,
    contents: Outline,
    choices: Choices,
    own: Family,
    asked: str | None,
    dense: bool,
) -> None:
    """Check what is stated of a file with weights of a family's own.

    Raises:
        InputError: It contradicts them, or leaves open where they stand.
    """
    if asked not in (None, own.name):
        raise InputError(
            f"{path} holds layers of {own.name}, which {asked} has none of; if they are to "
            f"be used, state --family {own.name}"
        )
    require_taken(path, choices, own)
    asks = own.from_stated is None and "merge_at" in own.stated and choices.merge_at is None
    if dense and asks and "cls_token" in contents.weights:
        raise InputError(
            f"{path} holds layers of {own.name}: there are no thresholds to make for it, and to "
            "run it the blocks before which they stand have to be stated (--merge-at 3,6,9)"
        )
    if choices.rated:
        counted = ", ".join(families.counted())
        raise InputError(f"--r and --reduction-target are for {counted}; drop them")


def require_asked(path: Path, family: Family, choices: Choices) -> None:
    """Refuse a file that alone names a family whose own weights it lacks, by `InputError`."""
    if family.weights is not None and choices.family is None:
        raise InputError(
            f"{path} holds no weights of {family.name}, which it calls itself; to begin with new "
            f"ones, state --family {family.name}"
        )


def require_taken(path: Path, choices: Choices, family: Family) -> None:
    """Check that a family takes all that is stated for one.

    Raises:
        InputError: It does not.
    """
    for name in OF_FAMILIES:
        if getattr(choices, name) is not None and name not in family.stated:
            raise InputError(f"{path}: family {family.name} takes no {flag(name)}; drop it")


def flag(name: str) -> str:
    """What a user types for one of `Choices`."""
    return f"--{name.replace('_', '-')}"

"""From what was typed to values, and what goes together, for several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices


def integers(flag: str, text: str, example: str, least: int = 1) -> tuple[int, ...]:
    """Integers of at least `least`, separated by commas.

    Raises:
        InputError: Something else was given.
    """
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < least:
        raise InputError(
            f"{flag} {text}: expected whole numbers of {least} or more, like {example}"
        )
    return values


def integer(flag: str, text: str, example: str) -> int:
    """One integer of at least 1.

    Raises:
        InputError: Something else was given.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise InputError(f"{flag} {text}: expected a whole number of 1 or more, like {example}")
    return value


def numbers(flag: str, text: str, example: str = "0.5,0.5,0.5") -> tuple[float, ...]:
    """Numbers, separated by commas.

    Raises:
        InputError: Something else was given.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{flag} {text}: expected numbers, for example {example}") from err


def protection(asked: str | None, before: bool | None) -> str:
    """What of decisions is protected: all, auto or none; `before` is the older switch, if given.

    Args:
        asked: None where it is not said: all.
        before: None where it is not said.

    Raises:
        InputError: The two do not say the same.
    """
    if before is None:
        return asked or "all"
    older = "all" if before else "none"
    if asked not in (None, older):
        switch = "--protect-decisions" if before else "--no-protect-decisions"
        raise InputError(f"{switch} is --protect {older}, and --protect {asked} another; give one")
    return older


def require_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None] = ()) -> None:
    """Check report files before the work, not after it.

    Raises:
        InputError: One cannot be written, or is another file of the same command.
    """
    from ltmp_export.files import disk

    def given(paths: Sequence[Path | None]) -> list[Path]:
        return [path for path in paths if path is not None]

    disk.require_outputs(given(outputs), given(inputs))


def require_beside(flag: str, value: object, needed: str, other: object) -> None:
    """Check that a flag, if it was given, has the one it belongs to.

    Raises:
        InputError: It has not.
    """
    if value is not None and other is None:
        raise InputError(f"{flag} is about {needed}; give that, too")


def require_takeable(
    checkpoint: Path,
    choices: Choices,
    *,
    dense: bool = False,
    learn: bool = False,
    train: bool = False,
    scripted: bool = False,
) -> str:
    """Refuse a checkpoint before what takes seconds to import, see
    `checkpoint.refusals.require_takeable`.

    Raises:
        InputError: It cannot be used.
    """
    from ltmp_export.checkpoint import refusals

    return refusals.require_takeable(
        checkpoint, choices, dense=dense, learn=learn, train=train, scripted=scripted
    )

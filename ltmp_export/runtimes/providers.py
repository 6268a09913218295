"""Execution providers: by exact or short name, and proof that the one asked for runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError, UnavailableError

SUFFIX = "ExecutionProvider"
CPU = f"CPU{SUFFIX}"


def resolve(
    asked: Sequence[str], known: Sequence[str], available: Sequence[str]
) -> tuple[str, ...]:
    """Full names of the providers asked for.

    Args:
        asked: Names, or beginnings of names that fit one provider only; case does not matter, and
            the ending "ExecutionProvider" may be left out.
        known: Providers onnxruntime knows of (`onnxruntime.get_all_providers()`).
        available: Those that the installed onnxruntime has.

    Raises:
        InputError: A name fits several, or is empty.
        UnavailableError: A name fits none, or one that is not installed.
    """
    if not all(name.strip() for name in asked):
        raise InputError(
            "an execution provider without a name was asked for; expected cpu, cuda, …"
        )
    names = list(dict.fromkeys([*known, *available]))
    found = tuple(dict.fromkeys(_full_name(name.strip(), names) for name in asked))
    require_installed(found, available)
    return found


def _full_name(asked: str, names: Sequence[str]) -> str:
    short = {name.removesuffix(SUFFIX).lower(): name for name in names}
    wanted = asked.lower().removesuffix(SUFFIX.lower())
    if wanted in short:
        return short[wanted]
    fitting = [name for start, name in short.items() if wanted and start.startswith(wanted)]
    if len(fitting) > 1:
        raise InputError(f"execution provider {asked!r} may be {' or '.join(fitting)}; say which")
    if fitting:
        return fitting[0]
    close = difflib.get_close_matches(wanted, short, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(short))}"
    raise UnavailableError(f"no execution provider {asked} is known to onnxruntime; {hint}")


def require_installed(providers: Sequence[str], available: Sequence[str]) -> None:
    """Check that the installed onnxruntime has these execution providers, by their full names.

    Raises:
        UnavailableError: One is missing.
    """
    missing = [name for name in providers if name not in available]
    if missing:
        raise UnavailableError(
            f"no execution provider {', '.join(missing)} in the installed onnxruntime; "
            f"it has {', '.join(available)}"
        )


def require_none(runtime: str, asked: Sequence[str]) -> None:
    """Check that none is named for a runtime that has none.

    Raises:
        UnavailableError: One is.
    """
    if asked:
        raise UnavailableError(
            f"{runtime} has no execution provider {', '.join(asked)}; it runs on the CPU, and none "
            "is to be named"
        )


def require_used(asked: str, placement: Mapping[str, int], model: str) -> None:
    """Check that the provider asked for is the one that is timed.

    Args:
        asked: Its full name.
        placement: Nodes that each provider ran.
        model: The file, for the message.

    Raises:
        UnavailableError: It ran no node.
    """
    if not placement.get(asked):
        instead = ", ".join(f"{name} runs {count}" for name, count in placement.items())
        raise UnavailableError(
            f"{asked} runs none of the nodes of {model}: {instead or 'nothing ran'}; "
            "its figures would be another provider's"
        )

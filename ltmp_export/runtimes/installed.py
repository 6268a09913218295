"""Which runtimes are installed, in which version, asked without importing them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Mapping

from ltmp_export.errors import UnavailableError
from ltmp_export.runtimes import listed


def version(name: str) -> str | None:
    """The installed version of a runtime; "" where nothing tells it, None where there is none.

    Raises:
        InputError: There is no such runtime.
    """
    modules = listed.find(name).modules
    if not all(map(_there, modules)):
        return None
    first = modules[0].partition(".")[0]
    named = _distributions().get(first, [])
    return importlib.metadata.version(sorted(named)[0]) if named else ""


def require(name: str) -> None:
    """Check that a runtime is installed.

    Raises:
        InputError: There is no such runtime.
        UnavailableError: It is not.
    """
    runtime = listed.find(name)
    missing = [module for module in runtime.modules if not _there(module)]
    if missing:
        raise UnavailableError(
            f"{runtime.called} is not installed (no module {missing[0]}): install it, or ltmp's "
            f"extra '{runtime.extra}'"
        )


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Packages by the modules that they install, which takes half a second to read."""
    return importlib.metadata.packages_distributions()


def _there(module: str) -> bool:
    """Whether Python finds a module; the packages it stands in are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False

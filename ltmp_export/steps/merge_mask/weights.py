"""The weights that masks must have, and those that training starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltmp_export.errors import InputError


def require(
    source: str, shapes: Mapping[str, Sequence[int]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that a file has these weights of masks, and no others.

    Raises:
        InputError: One is missing, misshapen or none of them.
    """
    for key in sorted(expected.keys() | shapes.keys()):
        if tuple(shapes.get(key, ())) != expected.get(key):
            found = list(shapes[key]) if key in shapes else "missing"
            wanted = list(expected[key]) if key in expected else "no such weight"
            raise InputError(f"{source}: {key} is {found}; expected {wanted}")


def unmoved(name: str, width: int) -> Iterator[tuple[str, Any]]:
    """Of a step of this name that leaves the mask where it is, of tokens of so many channels."""
    yield f"{name}.center", [0.0] * width
    yield f"{name}.step", [0.0]

"""The class of each folder: by a class map, the model's class names, or the order of their names.

timm numbers folders in natural order (2 before 10, regardless of case), torchvision's ImageFolder
in string order. Where the two differ and nothing else tells, the order has to be stated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from timm.utils import natural_key

from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images.folders import Found

if TYPE_CHECKING:
    from ltmp_export.images.sets import Kind

NATURAL, STRING = "natural", "string"
ORDERS = (NATURAL, STRING)
Numbers = Mapping[str, int]  # the class of each folder
_MAP = "which is which with --class-map FILE, a folder's name on each line"


class OpenOrderError(InputError):
    """Class folders have two orders, and nothing tells which is the model's."""


def numbers(found: Found, kind: Kind) -> Numbers | None:
    """The class of each folder in a folder; None where all pictures stand in it directly.

    Raises:
        InputError: They are not the model's classes.
        OpenOrderError: Their order has to be stated.
    """
    names = {path.parts[0] for path in found.inside if len(path.parts) > 1}
    return of_names(found.origin, "folder", names, kind)


def of_names(origin: str, called: str, names: Set[str], kind: Kind) -> Numbers | None:
    """The class of each name; None of none without a class map.

    Args:
        origin: Where they come from, for a person.
        called: "folder" or "label": what has the names.
        names: Those there are.
        kind: What the model says of its classes.

    Raises:
        InputError: They are not the model's classes.
        OpenOrderError: Their order has to be stated.
    """
    if kind.class_order not in (None, *ORDERS):
        raise InputError(f"class order {kind.class_order!r}; expected {' or '.join(ORDERS)}")
    if not kind.geometry.classes:
        return _of_anything(names, kind)
    if kind.class_map is not None:
        if kind.class_order is not None:
            raise InputError(f"{kind.class_map} has the order of the classes; drop --class-order")
        return _ordered(_read_class_map(kind.class_map, kind.geometry.classes))
    if not names:
        return None
    known = names & set(kind.label_names or ())
    if known and kind.class_order is None:
        return _by_label_names(origin, called, names, known, kind.label_names or ())
    if len(names) != kind.geometry.classes:
        raise InputError(
            f"{origin} has {len(names)} class {called}s ({some(names)}), the model "
            f"{kind.geometry.classes} classes; state {_MAP}"
        )
    return _ordered(_in_order(origin, called, names, kind))


def _of_anything(names: Set[str], kind: Kind) -> Numbers | None:
    """The names as stated or in natural order, where a model has no classes of its own.

    Raises:
        InputError: A class map is given, which is for the classes of a model.
    """
    if kind.class_map is not None:
        raise InputError(
            "the model has no classifier, whose classes a class map tells; drop --class-map"
        )
    if kind.class_order == STRING:
        return _ordered(sorted(names)) if names else None
    return _ordered(sorted(names, key=lambda name: (natural_key(name), name))) if names else None


def _in_order(origin: str, called: str, names: Set[str], kind: Kind) -> list[str]:
    """As stated; else as timm does, if torchvision does the same.

    Raises:
        OpenOrderError: It does not.
    """
    string = sorted(names)
    natural = sorted(names, key=lambda name: (natural_key(name), name))
    if kind.class_order == STRING:
        return string
    if natural != string and kind.class_order is None and not kind.assume_defaults:
        pairs = enumerate(zip(natural, string, strict=True))
        number, (one, other) = next(both for both in pairs if len(set(both[1])) > 1)
        raise OpenOrderError(
            f"{origin}: class {number} is {called} {one!r} in natural order (timm's), {other!r} in "
            "string order (torchvision's ImageFolder), and nothing tells which the model was "
            f"trained on; state --class-order {'|'.join(ORDERS)}, or {_MAP}"
        )
    return natural


def _by_label_names(
    origin: str, called: str, names: Set[str], known: Set[str], label_names: Sequence[str]
) -> Numbers:
    """The model's own numbers, where folders are called as its classes."""
    strangers = sorted(names - known)
    if strangers:
        raise InputError(
            f"{origin} has {len(known)} {called}s called as the model's classes ({some(known)}), "
            f"but also {some(strangers)}; state which is which with --class-map FILE"
        )
    if twice := sorted(name for name in known if label_names.count(name) > 1):
        raise InputError(
            f"{origin}: the model has several classes called {twice[0]!r}; state {_MAP}"
        )
    return _ordered(label_names)


def _ordered(names: Sequence[str]) -> Numbers:
    return {name: number for number, name in enumerate(names)}


def some(names: Collection[str]) -> str:
    """The first few."""
    return ", ".join([*sorted(names)[:3], *(["…"] if len(names) > 3 else [])])


def _read_class_map(path: Path, classes: int) -> list[str]:
    disk.require_file(path, "a text file with a class folder's name on each line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is not a text file: {err}") from err
    if len(lines) != classes or len(set(lines)) != classes:
        raise InputError(
            f"{path} has {len(lines)} lines, {len(set(lines))} of them different; the model has "
            f"{classes} classes"
        )
    return lines

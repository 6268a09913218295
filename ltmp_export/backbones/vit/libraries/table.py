"""A library's names as a table, and the tensors of a file named by it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ltmp_export.backbones.vit.libraries.parts import Part, Weights, same, stacked
from ltmp_export.errors import InputError

_LEAVES = ("weight", "bias")


@dataclass(frozen=True)
class Table:
    """Names of a library, and timm's for them; of modules, or of tensors in full.

    Attributes:
        block: What stands before the number of a block, with its dot.
        outer: Outside of blocks.
        inner: In a block, without its number.
        joined: timm's modules in a block that hold several of the library's, one under the other.
        unused: Patterns of whole names of what nothing needs, and what to say of it.
        prefixes: What the library's classes put before their model; taken off where it stands.
    """

    block: str
    outer: Mapping[str, str]
    inner: Mapping[str, str]
    joined: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    prefixes: Sequence[str] = ()


class Named(NamedTuple):
    """timm's tensors, what was left out, for a person, and names that the table has not."""

    parts: dict[str, Part]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]


def named(weights: Weights, table: Table, source: str) -> Named:
    """Find timm's tensors by a table.

    Args:
        weights: By the names in the file.
        table: Of the library.
        source: Where the weights come from, for messages.

    Raises:
        InputError: There is only some of what is joined.
    """
    block = re.compile(re.escape(table.block) + r"(0|[1-9][0-9]{0,5})\.(.+)")
    whole = {module: ours for ours, modules in table.joined.items() for module in modules}
    parts: dict[str, Part] = {}
    joined: dict[str, dict[str, str]] = defaultdict(dict)
    left: dict[str, list[str]] = defaultdict(list)
    unknown: list[str] = []
    for key in weights:
        own = key.removeprefix(next(filter(key.startswith, table.prefixes), ""))
        match = block.fullmatch(own)
        name, at = (match[2], f"blocks.{match[1]}.") if match else (own, "")
        module, _, leaf = name.rpartition(".")
        if match and module in whole and leaf in _LEAVES:
            joined[f"{at}{whole[module]}.{leaf}"][module] = key
        elif (ours := _ours(table.inner if match else table.outer, name)) is not None:
            parts[at + ours] = same(weights, key)
        elif why := next((w for p, w in table.unused.items() if re.fullmatch(p, own)), ""):
            left[why].append(key)
        else:
            unknown.append(key)
    for ours, keys in joined.items():
        modules = table.joined[ours.split(".", 2)[2].rpartition(".")[0]]
        missing = [module for module in modules if module not in keys]
        if missing:
            have = next(iter(keys.values()))
            raise InputError(f"{source}: {have} is there, and {', '.join(missing)} beside it not")
        parts[ours] = stacked(weights, *(keys[module] for module in modules))
    notes = (
        f"left out: {keys[0]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}, {why}"
        for why, keys in left.items()
    )
    return Named(parts, tuple(notes), tuple(unknown))


def _ours(names: Mapping[str, str], name: str) -> str | None:
    """The name in timm, by a tensor's own or its module's; None where the table has neither."""
    if name in names:
        return names[name]
    module, _, leaf = name.rpartition(".")
    return f"{names[module]}.{leaf}" if module in names and leaf in _LEAVES else None

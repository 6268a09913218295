"""timm's `ParallelThingsBlock`: several attentions side by side, then several MLPs.

Source: Touvron et al., arXiv 2203.09795. Each has a norm and a scale of its own, and what they give
is added. Weights of norms and scales are linear: all attentions of a block are one of all their
heads, all its MLPs one of all their channels, behind norms whose own weights are 1. That one is
made here, in float64.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ltmp_export.backbones.vit.libraries.parts import Part, Taken, Weights, same, zeros
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import ATTENTIONS, Said

if TYPE_CHECKING:
    from torch import Tensor

NAME = "timm's ParallelThingsBlock"
KEY = r"blocks\.\d+\.attns\.\d+\.attn\.qkv\.weight"
FIRST = r"patch_embed\.proj"

Thing: TypeAlias = "dict[str, Tensor]"  # one attention or MLP, by names within it

_THING = re.compile(r"(blocks\.(?:0|[1-9]\d{0,5}))\.(attns|ffns)\.(0|[1-9]\d?)\.(.+)")
_SCALE, _LEAVES = "ls.gamma", ("weight", "bias")


@dataclass(frozen=True)
class _Kind:
    """Attentions, or MLPs.

    Attributes:
        norm: What a plain block calls the norm in front.
        first: The layer that is given what the norm gives.
        last: The layer behind.
        thirds: Parts of what the first layer gives that stay apart: queries, keys and values.
    """

    norm: str
    first: str
    last: str
    thirds: int

    @property
    def needed(self) -> set[str]:
        """Names within each that cannot be missing."""
        return {f"{name}.weight" for name in ("norm", self.first, self.last)}

    @property
    def known(self) -> set[str]:
        """All that each may have."""
        biases = {f"{name}.bias" for name in ("norm", self.first, self.last)}
        return self.needed | biases | {_SCALE}

    def entering(self, things: Sequence[Thing]) -> Tensor:
        """The weight of the first layer."""
        return self._stacked(one[f"{self.first}.weight"] * one["norm.weight"] for one in things)

    def shift(self, things: Sequence[Thing]) -> Tensor:
        """Its bias, by which a norm's is multiplied through."""
        rows = []
        for one in things:
            weight = one[f"{self.first}.weight"]
            row = weight @ one["norm.bias"] if "norm.bias" in one else weight[:, 0] * 0
            rows.append(row + one.get(f"{self.first}.bias", 0))
        return self._stacked(rows)

    def leaving(self, things: Sequence[Thing]) -> Tensor:
        """The weight of the last layer."""
        import torch

        columns = [self._scaled(one, one[f"{self.last}.weight"].t()) for one in things]
        return torch.cat(columns).t().contiguous()

    def added(self, things: Sequence[Thing]) -> Tensor:
        """Its bias."""
        import torch

        return torch.stack([self._scaled(one, one[f"{self.last}.bias"]) for one in things]).sum(0)

    def _scaled(self, one: Thing, values: Tensor) -> Tensor:
        return values * one[_SCALE] if _SCALE in one else values

    def _stacked(self, weights: Iterable[Tensor]) -> Tensor:
        """Rows of all of them, queries first, then keys, then values."""
        import torch

        thirds = zip(*(weight.chunk(self.thirds) for weight in weights), strict=True)
        return torch.cat([part for third in thirds for part in third])


_KINDS = {
    "attns": _Kind("norm1", "attn.qkv", "attn.proj", 3),
    "ffns": _Kind("norm2", "mlp.fc1", "mlp.fc2", 1),
}


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model with one attention and one MLP in a block.

    Raises:
        InputError: Those of a block are not alike, or a weight is missing.
    """
    parts: dict[str, Part] = {}
    things: dict[tuple[str, str], dict[int, set[str]]] = defaultdict(dict)
    unknown = []
    for key in weights:
        if (match := _THING.fullmatch(key)) is None:
            parts[key] = same(weights, key)
        elif match[4] not in _KINDS[match[2]].known:
            unknown.append(key)
        else:
            things[match[1], match[2]].setdefault(int(match[3]), set()).add(match[4])
    for (block, kind), found in things.items():
        leaves = _alike(found, _KINDS[kind], f"{source}: {block}.{kind}")
        parts |= _one(weights, block, kind, len(found), leaves)
    number = max((len(found) for found in things.values()), default=1)
    told = f"{number} attentions side by side are one of all their heads, {number} MLPs one"
    return Taken(parts, {ATTENTIONS: Said(number, "its weights")}, (told,), tuple(unknown))


def _alike(found: Mapping[int, set[str]], kind: _Kind, where: str) -> tuple[str, ...]:
    """The names within each of them.

    Raises:
        InputError: One has fewer.
    """
    wanted = sorted(kind.needed.union(*found.values()))
    for index in range(max(found) + 1):
        have = found.get(index, set())
        if missing := [leaf for leaf in wanted if leaf not in have]:
            raise InputError(f"{where}.{index}.{missing[0]} is missing")
    return tuple(wanted)


def _one(
    weights: Weights, block: str, name: str, number: int, leaves: tuple[str, ...]
) -> dict[str, Part]:
    """Norm, first and last layer of the one that stands for so many."""
    kind, path = _KINDS[name], f"{block}.{name}"
    rows, width = _shape(weights, path, kind, number, leaves)

    def part(shape: tuple[int, ...], made: Callable[[Sequence[Thing]], Tensor], *of: str) -> Part:
        own = [leaf for leaf in of if leaf in leaves]
        keys = tuple(f"{path}.{index}.{leaf}" for index in range(number) for leaf in own)

        def make(*several: Tensor) -> Tensor:
            values = iter(several)
            things = [{leaf: next(values).double() for leaf in own} for _ in range(number)]
            return made(things).float()

        return Part(keys, shape, make)

    first, last = ([f"{layer}.{leaf}" for leaf in _LEAVES] for layer in (kind.first, kind.last))
    inner, whole = number * rows // kind.thirds, number * rows
    found = {
        f"{block}.{kind.norm}.weight": _ones(width),
        f"{block}.{first[0]}": part((whole, width), kind.entering, first[0], "norm.weight"),
        f"{block}.{first[1]}": part((whole,), kind.shift, *first, "norm.bias"),
        f"{block}.{last[0]}": part((width, inner), kind.leaving, last[0], _SCALE),
        f"{block}.{last[1]}": zeros(width),
    }
    if "norm.bias" in leaves:
        found[f"{block}.{kind.norm}.bias"] = zeros(width)
    if last[1] in leaves:
        found[f"{block}.{last[1]}"] = part((width,), kind.added, last[1], _SCALE)
    return found


def _shape(
    weights: Weights, path: str, kind: _Kind, number: int, leaves: tuple[str, ...]
) -> tuple[int, int]:
    """Rows and columns of each first layer.

    Raises:
        InputError: A weight does not fit it.
    """
    first = f"{path}.0.{kind.first}.weight"
    if len(shape := tuple(weights[first].shape)) != 2 or 0 in shape:
        raise InputError(f"{first} has shape {shape}; expected 2 non-empty dimensions")
    rows, width = shape
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(leaves, (width,))
    expected |= {
        f"{kind.first}.weight": (rows, width),
        f"{kind.first}.bias": (rows,),
        f"{kind.last}.weight": (width, rows // kind.thirds),
    }
    for index in range(number):
        for leaf in leaves:
            found = tuple(weights[f"{path}.{index}.{leaf}"].shape)
            if found != expected[leaf]:
                told = f"{path}.{index}.{leaf} has shape {found}"
                raise InputError(f"{told}; expected {expected[leaf]}")
    return rows, width


def _ones(width: int) -> Part:
    """The weight of a norm that scales nothing."""

    def make() -> Tensor:
        import torch

        return torch.ones(width)

    return Part((), (width,), make)

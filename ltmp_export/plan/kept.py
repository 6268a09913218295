"""How many patches the selections of a model keep, and in which blocks (METHOD §1).

Two rules that public scripts have for a keep rate, told apart by the file and never by a name:

    zoo       int(n · κ^(i+1)) at the i-th place of a model of n patches; with one share for each
              place int(n · κ_i); its topk and evit, and the official DynamicViT, have 196 for n,
              whatever the grid is
    official  ⌈κ · n⌉ of the n patches that are there, an earlier fused token among them
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan.remaking import Remaking

ZOO, OFFICIAL = "zoo", "official"
RULES = (ZOO, OFFICIAL)
WRITTEN_PATCHES = 196  # some scripts have this number, not that of the model
USUAL = {12: (3, 6, 9)}  # blocks, by depth
USUAL_RATE = 0.7

Rates = float | Sequence[float]


def listed(rate: Rates) -> tuple[float, ...]:
    """One share for all places, or one for each."""
    return (float(rate),) if isinstance(rate, (int, float)) else tuple(map(float, rate))


def by_zoo(rate: Rates, places: int, patches: int) -> tuple[int, ...]:
    """Patches of so many that are kept at each place; a single share is cumulative."""
    rates = listed(rate)
    if len(rates) == 1:
        return tuple(int(patches * rates[0] ** (place + 1)) for place in range(places))
    return tuple(int(patches * share) for share in rates)


def by_official(rate: float, patches: int) -> int:
    """Patches that are kept of those that are there."""
    return math.ceil(rate * patches)


def usual_places(depth: int) -> tuple[int, ...]:
    """The blocks behind each quarter of a model, as of the usual twelve; those that there are."""
    return tuple(sorted({quarter * depth // 4 for quarter in (1, 2, 3)} - {0}))


def require_places(
    source: str, depth: int, at: Sequence[int] | None, what: str, *, first: int = 0
) -> tuple[int, ...]:
    """The blocks that are stated, in their order.

    Args:
        source: The file, for messages.
        depth: Of the model.
        at: What is stated.
        what: Is done there, for messages.
        first: The first block that there can be.

    Raises:
        InputError: None are, or they are no blocks.
    """
    usual = ",".join(map(str, USUAL.get(depth, (1, 2, 3))))
    if at is None:
        told = "usual is" if depth in USUAL else "like"
        raise InputError(
            f"{source}: nothing tells the blocks that {what}; state them, {told} --merge-at {usual}"
        )
    rising = list(at) == sorted(set(at))
    if not at or not rising or not first <= at[0] <= at[-1] < depth:
        more = f" from {first}" if first else ""
        raise InputError(
            f"{source}: blocks {','.join(map(str, at)) or 'none'} (--merge-at): expected rising "
            f"numbers{more} of the {depth} blocks"
        )
    return tuple(at)


def require_one_way(rate: object, target: float | None) -> None:
    """Check that a share of the patches and one of the work are not both stated.

    Raises:
        InputError: They are.
    """
    if rate is not None and target is not None:
        raise InputError("--keep-rate and --reduction-target say the same in two ways; give one")


def require_rates(source: str, rate: Rates | None, places: int) -> tuple[float, ...]:
    """The shares that are stated: one, or one for each place.

    Raises:
        InputError: None are, or they are no shares.
    """
    if rate is None:
        raise InputError(
            f"{source}: nothing tells the share of the patches that stay; state it, usual is "
            f"--keep-rate {USUAL_RATE:g}"
        )
    rates = listed(rate)
    if not all(0.0 < share <= 1.0 for share in rates):
        raise InputError(f"{source}: keep rate {rate}: expected shares above 0, at most 1")
    if len(rates) not in (1, places):
        raise InputError(
            f"{source}: {len(rates)} keep rates for {places} blocks; expected one, or one for each"
        )
    return rates


def require_rule(rule: str | None) -> str:
    """The rule that is stated, or the official one.

    Raises:
        InputError: There is none of that name.
    """
    if rule not in (None, *RULES):
        raise InputError(f"--keep-rule {rule}: expected {', '.join(RULES)}")
    return rule or OFFICIAL


def require_made(source: str, before: Mapping[int, Remaking], counts: Sequence[int] | None) -> None:
    """Check that a file's layers make as many tokens as its script makes at its keep rate.

    Args:
        source: The file, for messages.
        before: What its layers make, by the block that they stand before.
        counts: Tokens that its script would make, where the file tells.

    Raises:
        InputError: They do not: another rule, or another script, wrote it.
    """
    made = [step.tokens for step in before.values()]
    if counts is not None and made != list(counts):
        raise InputError(
            f"{source}: its layers make {', '.join(map(str, made))} tokens, its args.keep_rate "
            f"{', '.join(map(str, counts))} (int(n · rate^i) of n patches); another rule wrote it, "
            "or other arguments"
        )


def lost(counts: Sequence[int], places: Sequence[int], patches: int) -> dict[int, int]:
    """Patches that go in each block, of which so many are left, by how many there are at first."""
    before = (patches, *counts)
    return {
        block: max(0, before[i] - left)
        for i, (block, left) in enumerate(zip(places, counts, strict=True))
    }


def layers(
    source: str, names: Iterable[str], at: Sequence[int] | None, depth: int
) -> dict[int, str]:
    """By block, the layer of a file that stands before it: `cluster_layers.0`, …

    Args:
        source: The file, for messages.
        names: Of its weights, the number of the layer second.
        at: The blocks that are stated.
        depth: Of the model.

    Raises:
        InputError: A layer is missing, or there are more or fewer than blocks.
    """
    listed = {name.split(".")[0] for name in names}
    numbers = sorted({int(name.split(".")[1]) for name in names})
    (kind,) = listed
    if numbers != list(range(len(numbers))):
        raise InputError(f"{source} holds {kind} {', '.join(map(str, numbers))}; expected 0, 1, …")
    places = require_places(source, depth, at, f"its {kind} stand before")
    if len(places) != len(numbers):
        raise InputError(
            f"{source}: {len(numbers)} {kind} for {len(places)} blocks "
            f"({','.join(map(str, places))}, --merge-at)"
        )
    return {block: f"{kind}.{number}" for number, block in zip(numbers, places, strict=True)}


def require_shapes(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    name: str,
    wanted: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that a layer is whole, by the shapes of its parts.

    Raises:
        InputError: A part is missing, or has another shape.
    """
    for part, expected in wanted.items():
        shape = shapes.get(f"{name}.{part}")
        if shape is None or tuple(shape) != expected:
            found = "missing" if shape is None else str(list(shape))
            raise InputError(f"{source}: {name}.{part} is {found}; expected {list(expected)}")

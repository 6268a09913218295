"""How many tokens each block loses where a family takes a fixed number (METHOD §1).

8          r = 8 in every block
8,8,6,4    r block by block
16:-1      a linear trend: from int(r (1 - t)) in the first block to 2 r minus that in the last,
truncated; with t = -1 from 2 r down to 0
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import share

MOST = 2**20  # tokens: far more than a model has, and no trouble to count with


def parse(text: str, depth: int) -> tuple[int, ...]:
    """R for each block.

    Args:
        text: In one of the forms above.
        depth: Number of blocks.

    Raises:
        InputError: It is of no such form, or for another number of blocks.
    """
    number, colon, trend = text.partition(":")
    try:
        if colon:
            return _trend(int(number), float(trend), depth)
        rates = tuple(int(part) for part in text.split(","))
    except (ValueError, OverflowError):
        rates = (-1,)
    if not all(0 <= rate <= MOST for rate in rates):
        raise InputError(
            f"--r {text}: expected tokens per block, like 8, or one number for each block, like "
            f"{','.join(['8'] * min(depth, 4))}{',…' if depth > 4 else ''}, or a linear trend from "
            "-1 to 1, like 16:-1"
        )
    if len(rates) not in (1, depth):
        raise InputError(f"--r {text}: {len(rates)} numbers, but the model has {depth} blocks")
    return rates * depth if len(rates) == 1 else rates


def _trend(rate: int, trend: float, depth: int) -> tuple[int, ...]:
    """A linear trend.

    Raises:
        ValueError: The first or last block would lose fewer than no token.
    """
    first = int(rate * (1.0 - trend))
    last = 2 * rate - first
    if not (0 <= first <= MOST and 0 <= last <= MOST):
        raise ValueError
    step = (last - first) / max(depth - 1, 1)
    return tuple(int(first + step * block) for block in range(depth))


def plan(family: Family, rates: tuple[int, ...], vit: Vit) -> Plan:
    """The plan of a family that takes r tokens from each block, as many as there are to take.

    Of N tokens, P of them protected, a step takes min(r, (N - P) // 2). A family of two steps
    divides r: pruning takes int(1 + (r - 2) i / (L - 1)) in block i of L, merging the rest. A block
    that takes none does nothing; where merging takes some, pruning sorts the tokens also if it
    takes none.
    """
    depth, tokens = len(rates), vit.tokens
    shares: dict[str, list[int]] = {kind: list(rates) for kind in family.counts}
    if len(shares) == 2:
        last = max(depth - 1, 1)
        parts = [int(1 + (rate - 2) * block / last) for block, rate in enumerate(rates)]
        pruned = [max(0, min(rate, part)) for rate, part in zip(rates, parts, strict=True)]
        merged = [rate - part for rate, part in zip(rates, pruned, strict=True)]
        shares = {"merge": merged, "prune": pruned}
    nominal = family.freeze(shares, vit.prefix)
    blocks = []
    for steps in nominal.blocks:
        sized = []
        for nominal_step in steps:
            step = nominal_step.limited(tokens, vit.prefix)
            tokens = step.after(tokens, vit.prefix) or tokens
            sized.append(step)
        taken = [step for step in sized if not step.idle]
        blocks.append(tuple(taken) if any(step.number for step in sized) else ())
    return replace(nominal, blocks=tuple(blocks))


def reaching(family: Family, target: float, vit: Vit) -> tuple[int, ...]:
    """The r, one for all blocks, that leaves the share of the multiply-accumulates nearest to this.

    Raises:
        InputError: Every r leaves more, or the share is none.
    """
    if not 0.0 < target <= 1.0:
        raise InputError(f"--reduction-target {target:g}: expected a share above 0 and up to 1")

    def left(rate: int) -> float:
        return share(vit, plan(family, (rate,) * vit.depth, vit))

    low, high = 0, vit.tokens  # of more than there are, no more are taken
    if left(high) > target:
        raise InputError(
            f"--reduction-target {target:g}: {family.name} leaves {left(high):.3f} of the "
            "multiply-accumulates at the least; ask for more"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) <= target else (middle, high)
    nearest = min((low, high), key=lambda rate: abs(left(rate) - target))
    return (nearest,) * vit.depth

"""Multiply-accumulates of an image, from its token counts (METHOD §1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ltmp_export.errors import InputError
from ltmp_export.plan.linears import COARSE, KEPT, LEFT, PATCHES, POOLED, RECEIVED
from ltmp_export.plan.plan import Plan, Rows, dense_plan

if TYPE_CHECKING:
    from ltmp_export.plan.geometry import Geometry
    from ltmp_export.plan.vit import Vit


def vit_macs(vit: Vit, plan: Plan, rows: Sequence[Rows]) -> int:
    """Multiply-accumulates that an image of so many tokens at each block takes.

    A block's attention runs on the tokens it receives, its MLP on the tokens it keeps; a step may
    have matrix products of its own.
    """
    inner = vit.heads * vit.head_width
    total = sum(2 * block.received**2 * inner for block in rows)  # scores, and what they mix
    total += own_products(vit, plan, rows)
    total += 0 if vit.stem is None else vit.stem.macs
    if vit.latent is not None:
        total += vit.latent.products(rows[-1].left - vit.unpooled, vit.width)
    return total + sum(
        n * layer.ins * layer.outs
        for n, layer in zip(vit_layer_rows(vit, rows), vit.linears(), strict=True)
    )


def own_products(vit: Vit, plan: Plan, rows: Sequence[Rows]) -> int:
    """Multiply-accumulates of the reduction's own matrix products."""
    total, left = 0, vit.tokens
    for block, (given, received, kept, _) in enumerate(rows):
        if block in plan.before:
            total += plan.before[block].macs(given, vit.prefix, vit.width)
        left = plan.behind(block, given, received, kept)
        for step in plan.blocks[block]:
            total += step.macs(received, vit.prefix, vit.width)
            received = step.after(received, vit.prefix) or received
    if vit.depth in plan.before:
        total += plan.before[vit.depth].macs(left, vit.prefix, vit.width)
    return total


def vit_layer_rows(vit: Vit, rows: Sequence[Rows]) -> list[int]:
    """Rows that one image gives to each of the linear layers."""
    found = []
    for layer in vit.linears():
        block = rows[layer.block or 0]
        by_word = {
            PATCHES: vit.patches,
            COARSE: vit.patches // 4,
            RECEIVED: block.received,
            KEPT: block.kept,
            LEFT: rows[-1].left,
            POOLED: 1,
        }
        found.append(by_word[layer.rows])
    return found


def macs(geometry: Geometry, counts: Sequence[int], plan: Plan | None = None) -> int:
    """Multiply-accumulates one image takes.

    Args:
        geometry: Of the model.
        counts: [depth] tokens that each block's MLP runs on.
        plan: What happens to the tokens before and in a block; by default each receives what the
            one before keeps.
    """
    return geometry.macs(plan or dense_plan(geometry.depth), counts)


def dense_macs(geometry: Geometry) -> int:
    """Multiply-accumulates of the same model when nothing is reduced; 4.60 G for DeiT-S."""
    return geometry.macs(dense_plan(geometry.depth))


def counts(geometry: Geometry, plan: Plan) -> tuple[int, ...]:
    """Tokens that each MLP of a `counted` plan runs on."""
    return tuple(rows.kept for rows in geometry.rows(plan))


def outgoing(geometry: Geometry, plan: Plan) -> int | None:
    """Tokens of an image that go out, where the reduction stands behind the last block.

    What it saves is then not in the model, but in what reads these. None where it stands elsewhere.
    """
    return geometry.rows(plan)[-1].left if plan.ends else None


def executed_macs(geometry: Geometry, plan: Plan, counts: Sequence[int]) -> int:
    """Multiply-accumulates that a plan's model takes for an image of these counts [depth]."""
    return geometry.macs(plan, plan.executed(counts))


def share(geometry: Geometry, plan: Plan) -> float:
    """Share of the dense ones that each image takes, where none has a say in it."""
    return executed_share(geometry, plan, [counts(geometry, plan)])


def executed_share(geometry: Geometry, plan: Plan, counts: Sequence[Sequence[int]]) -> float:
    """Mean share of the dense ones that images of these counts [n, depth] take."""
    total = sum(executed_macs(geometry, plan, image) for image in counts)
    return total / len(counts) / dense_macs(geometry)


def largest(target: float, cost: Callable[[float], float | None]) -> float | None:
    """The largest rate, in thousandths, that costs no more than a target; None where none does.

    Args:
        target: Share of the dense multiply-accumulates.
        cost: Share that a rate leaves; None where it cannot be.
    """
    for thousandths in range(1000, 0, -1):
        left = cost(thousandths / 1000)
        if left is not None and left <= target:
            return thousandths / 1000
    return None


def reaching(target: float, cost: Callable[[float], float | None], places: Sequence[int]) -> float:
    """The largest rate at some blocks, or in all of them, that costs no more, see `largest`.

    Raises:
        InputError: None does, or the target is no share.
    """
    if not 0.0 < target <= 1.0:
        raise InputError(f"--reduction-target {target:g}: expected a share above 0 and up to 1")
    if (rate := largest(target, cost)) is not None:
        return rate
    if not places:
        raise InputError(f"--reduction-target {target:g}: no rate leaves so little; ask for more")
    raise InputError(
        f"--reduction-target {target:g}: blocks {', '.join(map(str, places))} cannot leave so "
        "little; let earlier ones merge (--merge-at)"
    )

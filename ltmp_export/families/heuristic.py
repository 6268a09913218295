"""Keep the patches of a fixed pattern around the middle, before a few blocks.

A baseline of Haurum et al., "Which Tokens to Use? Investigating Token Reduction in Vision
Transformers", ICCV workshops 2023, arXiv 2308.04657, as the TokenReduction zoo has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan import kept, rings
from ltmp_export.plan.kept import Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.pattern.step import Pattern, ranges

BACKBONES = (Vit.kind,)
STATED = (
    "merge_at", "keep_rate", "grid_rounding", "heuristic_pattern", "min_radius", "not_contiguous",
)  # fmt: skip


def from_stated(
    source: str,
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    keep_rate: Rates | None,
    grid_rounding: str | None,
    heuristic_pattern: str | None = None,
    min_radius: float | None = None,
    not_contiguous: bool | None = None,
) -> Placed:
    """A selection before each block that leaves out a further ring of patches.

    Args:
        source: The file, for messages.
        vit: Geometry.
        merge_at: Before which blocks; if contiguous the first and the last of them.
        keep_rate: Share of the patches; not read if contiguous.
        grid_rounding: How float32 rounded the grid, one of `rings.ROUNDINGS`.
        heuristic_pattern: One of `rings.DISTANCES`.
        min_radius: Within which patches stay for good, if contiguous.
        not_contiguous: Whether each place has a number of patches instead of a radius.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    pattern = str(heuristic_pattern).lower()
    if pattern not in rings.DISTANCES or type(not_contiguous) is not bool:
        raise InputError(
            f"{source}: args.heuristic_pattern {heuristic_pattern!r:.40}, args.not_contiguous "
            f"{not_contiguous!r:.40}; expected {', '.join(rings.DISTANCES)} and True or False, as "
            "its script wrote them"
        )
    side = vit.grid[0]
    if vit.grid != (side, side):
        raise InputError(f"{source}: patterns are of square grids; this is {vit.grid}")
    if grid_rounding not in (None, *rings.ROUNDINGS):
        raise InputError(f"--grid-rounding {grid_rounding}: expected {', '.join(rings.ROUNDINGS)}")
    rounding = grid_rounding or rings.FMA
    z = rings.distances(side, pattern, rounding)
    at = kept.require_places(source, vit.depth, merge_at, "leave patches out")
    if not_contiguous:
        rates = kept.require_rates(source, keep_rate, len(at))
        counts = kept.by_zoo(rates, len(at), vit.patches)
        within = {block: rings.nearest(z, count) for block, count in zip(at, counts, strict=True)}
    else:
        within = _contiguous(at, z, side, _radius(source, min_radius), rounding)
    before, left = _selections(source, within, z)
    assumed: dict[str, Any] = {}
    if grid_rounding is None and not_contiguous and pattern != "linf":
        assumed["grid_rounding"] = rounding
    found = f"{pattern}: blocks {', '.join(map(str, within))} keep {', '.join(left)} of "
    doubts = () if before else ("its pattern keeps all patches",)
    return Placed(
        before=before, stated={"merge_at": at, "grid_rounding": rounding}, assumed=assumed,
        found=(f"{found}{vit.patches} patches",), warnings=doubts,
    )  # fmt: skip


def _radius(source: str, radius: float | None) -> float:
    """The smallest radius that is stated; 0 for that of the middle.

    Raises:
        InputError: It is no number.
    """
    if radius is not None and not (type(radius) in (int, float) and abs(radius) < float("inf")):
        raise InputError(f"{source}: args.min_radius {radius!r:.40}; expected a number")
    return max(0.0, radius or 0.0)


def _contiguous(
    at: tuple[int, ...], z: list[float], side: int, radius: float, rounding: str
) -> dict[int, float]:
    """By block from the first to the last, the distance within which patches stay."""
    first, last = at[0], at[-1]
    least = radius or z[(side // 2) * (side + 1)]
    radii = rings.spaced(z[0], least, last - first + 3, rounding)
    skipped = 1 if first else 0  # before block 0 the corner's own comes first
    return {first + j: radii[j + skipped] for j in range(last - first + 1)}


def _selections(
    source: str, within: Mapping[int, float], z: list[float]
) -> tuple[dict[int, Step], list[str]]:
    """The selections by block, of what the ones before left, and how many each leaves.

    Raises:
        InputError: One leaves no patch.
    """
    standing, before, left = list(range(len(z))), dict[int, Step](), []
    for block, distance in within.items():
        rows = [row for row, patch in enumerate(standing) if z[patch] <= distance]
        if not rows:
            raise InputError(f"{source}: its pattern leaves no patch at block {block}")
        if len(rows) < len(standing):
            before[block] = Pattern(ranges(rows), len(standing))
        standing = [standing[row] for row in rows]
        left.append(str(len(rows)))
    return before, left

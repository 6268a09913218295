"""Keep the crucial patches of a few blocks, merge each other into the most similar of them.

Bian et al., "Multi-Scale And Token Mergence: Make Your ViT More Efficient", arXiv 2306.04897, of
which only the abstract is public: what it leaves open is assumed, METHOD §1 says what.
"""

from __future__ import annotations

from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import reaching, share
from ltmp_export.steps.mergence.step import UNIFORM, WEIGHTINGS, Mergence

CLASS_TOKEN = TRAINABLE = True
STATED = ("keep_rate", "merge_at", "merge_weights", "reduction_target")

_KEEP_RATE = 0.7


def from_stated(
    source: str,
    vit: Vit,
    *,
    keep_rate: float | None,
    merge_at: tuple[int, ...] | None,
    merge_weights: str | None,
    reduction_target: float | None = None,
) -> Placed:
    """The steps behind the attention of some blocks; the k-th leaves int(rate^k · n) of n patches.

    Args:
        source: The file, for messages.
        vit: Geometry.
        keep_rate: Share of the patches that stay each time, by default 0.7.
        merge_at: The blocks, of twelve by default 3, 6 and 9.
        merge_weights: Of the mean of what merges, see `Mergence`.
        reduction_target: Share of the multiply-accumulates to be left, which picks the keep rate.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    if vit.pool != "token":
        raise InputError(
            f"{source}: family multiscale_mergence is of models that classify their class token; "
            f"this one pools by {vit.pool}, and how a mean weighs what merged is nowhere said; "
            "others take it, like evit or m"
        )
    assumed: dict[str, Any] = {}
    if merge_weights is None:
        merge_weights = assumed["merge_weights"] = UNIFORM
    if merge_at is None:
        if vit.depth not in kept.USUAL:
            raise InputError(
                f"{source}: of {vit.depth} blocks nothing tells those that merge; state them, like "
                "--merge-at 1,2,3"
            )
        merge_at = assumed["merging_blocks"] = kept.USUAL[vit.depth]
    kept.require_one_way(keep_rate, reduction_target)
    if keep_rate is None and reduction_target is None:
        keep_rate = assumed["keep_rate"] = _KEEP_RATE
    _require_sound(keep_rate, merge_at, merge_weights, vit)
    if keep_rate is None:
        keep_rate = _reaching(float(reduction_target or 0), merge_at, vit)
    stated = {"keep_rate": keep_rate, "merge_at": merge_at, "merge_weights": merge_weights}
    left = _kept(keep_rate, merge_at, vit)
    if not all(left):
        raise InputError(
            f"--keep-rate {keep_rate:g} leaves no patch at block {merge_at[left.index(0)]}"
        )
    blocks: dict[int, tuple[Step, ...]] = {}
    for block, before, keep in zip(merge_at, (vit.patches, *left), left, strict=False):
        if keep < before:
            blocks[block] = (Mergence(keep, merge_weights),)
    if not blocks:
        doubt = f"keep rate {keep_rate:g} keeps all patches"
        return Placed(stated=stated, assumed=assumed, warnings=(doubt,))
    found = (
        f"keep rate {keep_rate:g}: blocks {', '.join(map(str, merge_at))} keep "
        f"{', '.join(map(str, left))} of {vit.patches} patches",
    )
    return Placed(blocks=blocks, stated=stated, found=found, assumed=assumed)


def _kept(rate: float, merge_at: tuple[int, ...], vit: Vit) -> list[int]:
    """Patches left behind each of the blocks."""
    return [int(rate**number * vit.patches) for number, _ in enumerate(merge_at, 1)]


def _reaching(target: float, merge_at: tuple[int, ...], vit: Vit) -> float:
    """The largest rate, in thousandths, that leaves no more than this share of the work.

    Raises:
        InputError: None does, or the share is none.
    """

    def cost(rate: float) -> float | None:
        kept = _kept(rate, merge_at, vit)
        return _share(kept, merge_at, vit) if kept[-1] else None

    return reaching(target, cost, merge_at)


def _share(kept: list[int], merge_at: tuple[int, ...], vit: Vit) -> float:
    """Share of the dense multiply-accumulates."""
    numbers = dict(zip(merge_at, kept, strict=True))
    left, blocks = vit.patches, []
    for block in range(vit.depth):
        merges = numbers.get(block, left) < left
        left = min(left, numbers.get(block, left))
        blocks.append((Mergence(left),) if merges else ())
    return share(vit, Plan("multiscale_mergence", tuple(blocks)))


def _require_sound(
    keep_rate: float | None, merge_at: tuple[int, ...], weights: str, vit: Vit
) -> None:
    """Check what is stated.

    Raises:
        InputError: It cannot be.
    """
    if keep_rate is not None and (type(keep_rate) not in (int, float) or not 0 < keep_rate <= 1):
        raise InputError(f"--keep-rate {keep_rate}: expected a share above 0, at most 1")
    if weights not in WEIGHTINGS:
        raise InputError(f"--merge-weights {weights}: expected {', '.join(WEIGHTINGS)}")
    rising = list(merge_at) == sorted(set(merge_at))
    if not merge_at or not rising or not 0 <= merge_at[0] <= merge_at[-1] < vit.depth:
        raise InputError(
            f"--merge-at {','.join(map(str, merge_at))}: expected rising numbers of the "
            f"{vit.depth} blocks"
        )

"""Merge patches by a learned mask that follows the tokens (LTM-Transformer).

Wang & Yang, "Efficient Visual Transformer by Learnable Token Merging", arXiv 2407.15219, of which
no equations and no model code are public: all is assumed but the frame, METHOD §1 says what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan.cells import cells, membership
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.positions import require_none
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import largest, share
from ltmp_export.steps.merge_mask import stages, weights, windows
from ltmp_export.steps.merge_mask.step import MergeMask

BACKBONES = (Vit.kind, "beit", "eva", *stages.KINDS, *windows.KINDS)
_PLAIN = r"ltm\.mask0|blocks\.(0|[1-9][0-9]{0,5})\.ltm\.(center|step)"
WEIGHTS = "|".join((_PLAIN, stages.WEIGHTS, windows.WEIGHTS))
TRAINABLE = True
STATED = ("compression_ratio", "merge_at", "hard", "restore", "reduction_target")

_OTHERS = {kind: networks for networks in (stages, windows) for kind in networks.KINDS}
_MASK = "ltm.mask0"
_RATIO = 0.75
_EARLIEST = 3  # a third of the blocks are before the one that merges


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    compression_ratio: float | None,
    merge_at: tuple[int, ...] | None,
    hard: bool | None,
    restore: bool | None,
    reduction_target: float | None = None,
) -> Placed:
    """The merges that trained masks tell of.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        compression_ratio: As of `from_stated`; the masks' shape tells, and has to agree.
        merge_at: Likewise.
        hard: Whether each patch goes to one target, which no shape tells.
        restore: Likewise; told by the blocks that merge, unless there is one block.
        reduction_target: Not taken: the masks are made.

    Raises:
        InputError: A tensor is missing or does not fit, or something has to be stated.
    """
    _require_one_way(compression_ratio, reduction_target)
    if hard is None:
        raise InputError(
            f"{source}: nothing tells whether its masks are hard, each patch going to one target; "
            "state --hard or --soft"
        )
    other = _OTHERS.get(vit.kind)
    if other is not None:
        told: Placed = other.from_weights(
            source, vit, shapes, compression_ratio=compression_ratio, merge_at=merge_at, hard=hard,
            restore=restore,
        )  # fmt: skip
        return told
    blocks = sorted({int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")})
    if not blocks or blocks[-1] >= vit.depth:
        raise InputError(f"{source}: masks of blocks {blocks}; the model has {vit.depth} blocks")
    if 1 < len(blocks) < vit.depth:
        raise InputError(
            f"{source}: masks of blocks {', '.join(map(str, blocks))}; expected one block that "
            f"merges, or all {vit.depth}, which restore the tokens"
        )
    if restore is None and vit.depth == 1:
        raise InputError(f"{source}: nothing tells whether tokens are restored; state --restore")
    if vit.depth > 1 and restore not in (None, len(blocks) > 1):
        wanted = "are restored, which takes masks of all" if restore else "are not restored"
        raise InputError(f"{source}: masks of {len(blocks)} blocks, but tokens {wanted}")
    if merge_at is not None and (len(blocks) > 1 or merge_at != tuple(blocks)):
        at = ",".join(map(str, merge_at))
        raise InputError(f"--merge-at {at}: {source} merges in {', '.join(map(str, blocks))}")
    mask = shapes.get(_MASK, ())
    targets = mask[1] if len(mask) == 2 else 0
    _require_weights(source, shapes, _shapes(blocks, vit, targets))
    if targets > vit.patches:
        raise InputError(f"{source}: {_MASK} makes {targets} tokens of {vit.patches}")
    asked = targets if compression_ratio is None else _targets(compression_ratio, vit)
    if asked != targets:
        raise InputError(
            f"--compression-ratio {compression_ratio:g}: {asked} of {vit.patches} patches; the "
            f"masks of {source} leave {targets}"
        )
    back = len(blocks) > 1 if restore is None else restore
    placed = _placed(blocks, targets, vit, hard=hard, restore=back)
    return replace(placed, stated=_stated(compression_ratio, blocks, hard=hard, restore=back))


def _require_weights(
    source: str, shapes: Mapping[str, Sequence[int]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse by `InputError` weights of masks that are missing, misshapen or of no ViT."""
    if strange := sorted(shapes.keys() - expected.keys()):
        raise InputError(
            f"{source}: {strange[0]} is {list(shapes[strange[0]])}; a plain ViT has no such weight"
        )
    for key, shape in expected.items():
        if tuple(shapes.get(key, ())) != shape or not all(shape):
            found = list(shapes[key]) if key in shapes else "missing"
            raise InputError(f"{source}: {key} is {found}; expected {_sides(shape)}")


def from_stated(
    source: str,
    vit: Vit,
    *,
    compression_ratio: float | None,
    merge_at: tuple[int, ...] | None,
    hard: bool | None,
    restore: bool | None,
    reduction_target: float | None = None,
) -> Placed:
    """The merges of a model that is not trained with any: masks as training starts.

    Args:
        source: The file, for messages.
        vit: Geometry.
        compression_ratio: Share of the patches that are left, by default 0.75.
        merge_at: The one block that merges, by default a third of the depth; of all that restore,
            none.
        hard: Whether each patch goes to one target, by default not.
        restore: Whether each block merges and restores, by default not.
        reduction_target: Share of the multiply-accumulates to be left, which picks the ratio.

    Raises:
        InputError: Something does not fit the model.
    """
    _require_one_way(compression_ratio, reduction_target)
    other = _OTHERS.get(vit.kind)
    if other is not None:
        told: Placed = other.from_stated(
            source, vit, compression_ratio=compression_ratio, merge_at=merge_at, hard=hard,
            restore=restore, reduction_target=reduction_target,
        )  # fmt: skip
        return told
    assumed: dict[str, Any] = {}
    if hard is None:
        hard, assumed["masks"] = False, "soft"
    if restore is None:
        restore, assumed["behind"] = False, "tokens stay merged"
    blocks = _blocks(merge_at, restore, vit)
    if merge_at is None and not restore:
        assumed["masked_block"] = blocks
    if compression_ratio is None and reduction_target is None:
        compression_ratio = assumed["compression_ratio"] = _RATIO
    ratio = compression_ratio
    if ratio is None:
        ratio = _reaching(float(reduction_target or 0), blocks, vit, hard=hard, restore=restore)
    if not _targets(ratio, vit):
        raise InputError(f"--compression-ratio {ratio:g} leaves no patch")
    placed = _placed(blocks, _targets(ratio, vit), vit, hard=hard, restore=restore)
    doubt = f"the masks of {source} are as training starts: means of the patches of each cell"
    return Placed(
        blocks=placed.blocks,
        stated=_stated(ratio, blocks, hard=hard, restore=restore),
        found=placed.found,
        assumed=assumed,
        warnings=(doubt,),
        parameters=dict(_start(blocks, cells(ratio, vit.grid), vit)),
    )


def _stated(
    ratio: float | None, blocks: Sequence[int], *, hard: bool, restore: bool
) -> dict[str, Any]:
    """What a file says of masks like these, beside their weights."""
    said: dict[str, Any] = {"hard": hard, "restore": restore}
    if ratio is not None:
        said["compression_ratio"] = ratio
    return said if restore else said | {"merge_at": tuple(blocks)}


def _blocks(merge_at: tuple[int, ...] | None, restore: bool, vit: Vit) -> list[int]:
    """Those that merge.

    Raises:
        InputError: They cannot be those stated.
    """
    if restore:
        if merge_at is not None:
            raise InputError("--merge-at: with --restore all blocks merge; drop one of them")
        return list(range(vit.depth))
    if merge_at is None:
        return [vit.depth // _EARLIEST]
    if len(merge_at) != 1 or not 0 <= merge_at[0] < vit.depth:
        raise InputError(
            f"--merge-at {','.join(map(str, merge_at))}: expected one of the {vit.depth} blocks"
        )
    return list(merge_at)


def _require_one_way(ratio: float | None, target: float | None) -> None:
    """Check that how much is left is stated once, as a share above 0 and at most 1.

    Raises:
        InputError: It is not.
    """
    if ratio is not None and target is not None:
        raise InputError(
            "--compression-ratio and --reduction-target say the same in two ways; give one"
        )
    for flag, value in (("--compression-ratio", ratio), ("--reduction-target", target)):
        if value is not None and (type(value) not in (int, float) or not 0.0 < value <= 1.0):
            raise InputError(f"{flag} {value}: expected a share above 0, at most 1")


def _targets(ratio: float, vit: Vit) -> int:
    """How many targets."""
    rows, columns = cells(ratio, vit.grid)
    return rows * columns


def _placed(blocks: Sequence[int], targets: int, vit: Vit, *, hard: bool, restore: bool) -> Placed:
    """The steps, and what they come to."""
    if not restore:
        require_none(vit)
    if restore and vit.parallel:
        raise InputError("drop --restore: it gives back behind MLPs, which run beside attention")
    steps: dict[int, tuple[Step, ...]] = {
        block: (
            MergeMask(
                f"blocks.{block}.ltm", _MASK, vit.patches, targets, first=block == blocks[0],
                hard=hard, restore=restore,
            ),
        )
        for block in blocks
    }  # fmt: skip
    where = "each block merges and restores" if restore else f"block {blocks[0]} merges"
    found = (f"{where}: {targets} of {vit.patches} patches, masks {'hard' if hard else 'soft'}",)
    return Placed(blocks=steps, found=found)


def _reaching(
    target: float, blocks: Sequence[int], vit: Vit, *, hard: bool, restore: bool
) -> float:
    """The largest ratio, in thousandths, that leaves no more than this share of the work.

    Raises:
        InputError: None does, or the share is none.
    """

    def cost(ratio: float) -> float | None:
        if not (targets := _targets(ratio, vit)):
            return None
        steps = _placed(blocks, targets, vit, hard=hard, restore=restore).blocks
        taken = tuple(steps.get(block, ()) for block in range(vit.depth))
        return share(vit, Plan("ltm_transformer", taken))

    if (ratio := largest(target, cost)) is not None:
        return ratio
    way = "without --restore, or an earlier block (--merge-at)" if restore else "an earlier block"
    where = "all blocks" if restore else f"block {blocks[0]}"
    raise InputError(
        f"--reduction-target {target:g}: masks in {where} cannot leave so little; try {way}"
    )


def _start(
    blocks: Sequence[int], divided: Size, vit: Vit
) -> Iterator[tuple[str, Sequence[Sequence[float]] | Sequence[float]]]:
    """Weights as training starts: each patch in the cell of the grid that it lies in, no step."""
    yield _MASK, membership(vit.grid, divided)
    for block in blocks:
        yield from weights.unmoved(f"blocks.{block}.ltm", vit.width)


def _shapes(blocks: Sequence[int], vit: Vit, targets: int) -> dict[str, tuple[int, ...]]:
    """Of all the weights there must be."""
    found: dict[str, tuple[int, ...]] = {_MASK: (vit.patches, targets)}
    for block in blocks:
        found |= {f"blocks.{block}.ltm.center": (vit.width,), f"blocks.{block}.ltm.step": (1,)}
    return found


def _sides(shape: Sequence[int]) -> str:
    """A shape, where a side of 0 is any."""
    return f"[{', '.join(str(side or 'targets') for side in shape)}]"

"""Where a model keeps what the class token attends to, by the rule of its script (METHOD §1)."""

from __future__ import annotations

from collections.abc import Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.kept import OFFICIAL, ZOO, Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import reaching, share
from ltmp_export.steps.fuse.step import Fuse

PT = "TokenReductionPT"  # of the official rule, and fails where all patches would stay


def placed(
    source: str,
    vit: Vit,
    *,
    keep_rate: Rates | None,
    merge_at: tuple[int, ...] | None,
    keep_rule: str | None,
    fused: bool,
    trained_by: str | None,
    reduction_target: float | None = None,
) -> Placed:
    """The steps of the blocks that keep some.

    Args:
        source: The file, for messages.
        vit: Geometry.
        keep_rate: Share of the patches that stay, or one for each block.
        merge_at: The blocks.
        keep_rule: One of `plan.kept.RULES`.
        fused: Whether the others become a token.
        trained_by: The script that wrote the file, where one is known.
        reduction_target: Share of the multiply-accumulates to be left instead, which picks the
            share of the patches.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    rule = kept.require_rule(keep_rule)
    at = kept.require_places(source, vit.depth, merge_at, "keep some of their patches")
    if reduction_target is not None:
        kept.require_one_way(keep_rate, reduction_target)

        def left(rate: float) -> float | None:
            try:
                blocks = _blocks(source, vit, at, (rate,), rule, fused, trained_by)[0]
            except InputError:
                return None
            return share(vit, Plan("", tuple(blocks.get(i, ()) for i in range(vit.depth))))

        keep_rate = reaching(reduction_target, left, at)
    rates = kept.require_rates(source, keep_rate, len(at))
    blocks, told = _blocks(source, vit, at, rates, rule, fused, trained_by)
    found = f"{rule} rule: blocks {', '.join(map(str, at))} keep {', '.join(told)} patches"
    if reduction_target is not None:
        found = f"keep rate {keep_rate:g}, {found}"
    stated = {"keep_rate": keep_rate, "merge_at": at, "keep_rule": rule}
    doubts = () if blocks else (f"keep rate {', '.join(map(str, rates))} keeps all patches",)
    return Placed(blocks, stated=stated, found=(found,), warnings=doubts)


def _blocks(
    source: str,
    vit: Vit,
    at: Sequence[int],
    rates: tuple[float, ...],
    rule: str,
    fused: bool,
    trained_by: str | None,
) -> tuple[dict[int, tuple[Step, ...]], list[str]]:
    """The steps by block, and for each place how many patches stay, for a person.

    Raises:
        InputError: So many cannot.
    """
    each = rates * len(at) if len(rates) == 1 else rates
    numbers = (0,) * len(at)
    if rule == ZOO:
        numbers = kept.by_zoo(rates, len(at), kept.WRITTEN_PATCHES)
    tokens, blocks, told = vit.tokens, dict[int, tuple[Step, ...]](), []
    for block, rate, number in zip(at, each, numbers, strict=True):
        step = Fuse(rate, fused, number)
        patches, stay = tokens - vit.prefix, number
        if rule == OFFICIAL:
            stay = step.kept(tokens, vit.prefix)
        _require_kept(source, block, stay, patches, _fails(rule, fused, trained_by, len(rates)))
        if stay < patches:
            blocks[block] = (step,)
            tokens = step.after(tokens, vit.prefix)
        told.append(f"{min(stay, patches)} of {patches}")
    return blocks, told


def _fails(rule: str, fused: bool, trained_by: str | None, shares: int) -> str:
    """Whose code fails where all patches would stay, or nothing."""
    if trained_by == PT:
        return PT
    return "the zoo's topk" if rule == ZOO and not fused and shares > 1 else ""


def _require_kept(source: str, block: int, stay: int, patches: int, fails: str) -> None:
    """Check that so many patches can be kept.

    Raises:
        InputError: There are fewer, none would be left, or the code that this is of fails.
    """
    if stay < 1:
        raise InputError(f"{source}: its keep rate leaves no patch at block {block}")
    if stay > patches:
        raise InputError(
            f"{source}: block {block} is to keep {stay} of {patches} patches, which are fewer; the "
            "original fails, too"
        )
    if stay == patches and fails:
        raise InputError(
            f"{source}: block {block} is to keep all {patches} patches, on which {fails} fails; "
            "such a file was never trained so: look at its keep rates"
        )

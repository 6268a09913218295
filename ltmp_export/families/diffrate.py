"""Sort the patches of each block by class attention, drop the last, merge some (DiffRate).

Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", ICCV
2023, arXiv 2305.17997, as OpenGVLab/DiffRate at 91ae3e3 has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import budgets
from ltmp_export.plan import kept as kept_in
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import reaching, share
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.rank.step import Rank

BACKBONES = (Vit.kind,)
CLASS_TOKEN = True
STATED = ("diffrate", "budget", "keep_rate", "reduction_target")

_SIZES = {192: "T", 384: "S", 768: "B", 1024: "L", 1280: "H"}  # of models, by their width
_KINDS = {"token": "DeiT", "avg": "MAE"}  # by their pooling
_LISTS = ("prune_kept_num", "merge_kept_num")


def from_stated(
    source: str,
    vit: Vit,
    *,
    diffrate: str | None,
    budget: str | None,
    keep_rate: float | None = None,
    reduction_target: float | None = None,
) -> Placed:
    """The steps of every block, by the counts of a budget, or even ones.

    Args:
        source: The file, for messages.
        vit: Geometry.
        diffrate: `compression_rate.json`, as text.
        budget: A budget in it, or MODEL:BUDGET.
        keep_rate: Share of its patches that each block keeps, instead of learned counts.
        reduction_target: Share of the multiply-accumulates to be left, which picks that.

    Raises:
        InputError: There is no such budget, its counts cannot be the model's, or there are none.
    """
    kept_in.require_one_way(keep_rate, reduction_target)
    if vit.pool not in _KINDS or vit.prefix != 1:
        raise InputError(
            f"{source}: DiffRate's code is of models with a class token alone before the patches, "
            f"pooled by it or averaged; this one has {vit.prefix} there, pooled by {vit.pool}"
        )
    even = keep_rate is not None or reduction_target is not None
    if even and (diffrate is not None or budget is not None):
        raise InputError(
            f"{source}: --diffrate gives counts for each block, --keep-rate or --reduction-target "
            "even ones instead; give one"
        )
    if even:
        return _evenly(source, vit, keep_rate, reduction_target)
    if diffrate is None:
        raise InputError(
            f"{source}: which tokens DiffRate keeps is in no weights; give its file with "
            "--diffrate compression_rate.json --budget NAME, or take as many from each block: "
            "--keep-rate 0.9, or --reduction-target 0.5"
        )
    own = f"ViT-{_SIZES.get(vit.width, '?')}-{_KINDS[vit.pool]}"
    where, counts = budgets.chosen(diffrate, budget, own)
    kept, merged = (budgets.counts(where, counts, key, vit.depth) for key in _LISTS)
    blocks = dict(enumerate(_steps(kept, merged, vit.tokens)))
    left = " ".join(map(str, _left(blocks, vit.tokens)))
    doubts = () if int(left.split()[-1]) < vit.tokens else (f"{where} keeps all tokens",)
    stated = {"diffrate": diffrate, "budget": budget}
    found = (f"DiffRate's {where}: tokens after each block {left}",)
    return Placed(blocks, stated=stated, found=found, warnings=doubts)


def _evenly(source: str, vit: Vit, rate: float | None, target: float | None) -> Placed:
    """Every block keeps the same share of its patches.

    Raises:
        InputError: It is no share, or no rate leaves so little.
    """
    if rate is None:
        rate = reaching(float(target or 0), lambda one: share(vit, _plan(one, vit)), ())
    (rate,) = kept_in.require_rates(source, rate, 1)
    blocks = dict(enumerate(_steps(*_even(rate, vit), vit.tokens)))
    left = " ".join(map(str, _left(blocks, vit.tokens)))
    found = f"keep rate {rate:g} in each block: tokens after each block {left}"
    doubt = (
        "the counts are even, not DiffRate's learned ones: each block keeps "
        f"{rate:g} of its patches, drops half of the others and merges half"
    )
    return Placed(blocks, stated={"keep_rate": rate}, found=(found,), warnings=(doubt,))


def _even(rate: float, vit: Vit) -> tuple[list[int], list[int]]:
    """What each block leaves by pruning, and of that by merging, the class token among both."""
    kept, merged, patches = list[int](), list[int](), vit.patches
    for block in range(vit.depth):
        left = max(1, min(patches, round(vit.patches * rate ** (block + 1))))
        kept.append(1 + patches - (patches - left) // 2)
        merged.append(1 + left)
        patches = left
    return kept, merged


def _plan(rate: float, vit: Vit) -> Plan:
    """The plan of a rate, to tell its work by."""
    return Plan("diffrate", tuple(_steps(*_even(rate, vit), vit.tokens)))


def _steps(kept: Sequence[int], merged: Sequence[int], tokens: int) -> Iterator[tuple[Step, ...]]:
    """Of each block; a count that is no less than there are does nothing.

    Merging compares the two counts that are stated, as the original does.
    """
    for most, into in zip(kept, merged, strict=True):
        tokens = min(tokens, most)
        steps: tuple[Step, ...] = (Rank(tokens - 1),)
        if into < most and into < tokens:
            steps, tokens = (*steps, Absorb(into - 1)), into
        yield steps


def _left(blocks: Mapping[int, tuple[Step, ...]], tokens: int) -> Iterator[int]:
    """Tokens after each block."""
    for steps in blocks.values():
        tokens = steps[-1].after(tokens, 1) or tokens
        yield tokens

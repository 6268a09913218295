"""Sort the patches of each block by class attention, drop the last, merge some (DiffRate).

Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", ICCV
2023, arXiv 2305.17997, as OpenGVLab/DiffRate at 91ae3e3 has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import budgets
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.rank.step import Rank

BACKBONES = (Vit.kind,)
CLASS_TOKEN = True
STATED = ("diffrate", "budget")

_SIZES = {192: "T", 384: "S", 768: "B", 1024: "L", 1280: "H"}  # of models, by their width
_KINDS = {"token": "DeiT", "avg": "MAE"}  # by their pooling
_LISTS = ("prune_kept_num", "merge_kept_num")


def from_stated(source: str, vit: Vit, *, diffrate: str | None, budget: str | None) -> Placed:
    """The steps of every block, by the counts of a budget.

    Args:
        source: The file, for messages.
        vit: Geometry.
        diffrate: `compression_rate.json`, as text.
        budget: A budget in it, or MODEL:BUDGET.

    Raises:
        InputError: There is no such budget, or its counts cannot be this model's.
    """
    if diffrate is None:
        raise InputError(
            f"{source}: which tokens DiffRate keeps is in no weights; give its file with "
            "--diffrate compression_rate.json --budget NAME"
        )
    if vit.pool not in _KINDS or vit.prefix != 1:
        raise InputError(
            f"{source}: DiffRate's code is of models with a class token alone before the patches, "
            f"pooled by it or averaged; this one has {vit.prefix} there, pooled by {vit.pool}"
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

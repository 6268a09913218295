"""Sample tokens by the class token's attention and the length of values, at a few blocks (ATS).

Fayyaz et al., "Adaptive Token Sampling for Efficient Vision Transformers", ECCV 2022, arXiv
2111.15667, as the TokenReduction zoo has it; METHOD §1.
"""

from __future__ import annotations

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.kept import Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.sample.step import MOST_SAMPLES, Sample

BACKBONES = (Vit.kind,)
CLASS_TOKEN = VARIES = True
STATED = ("keep_rate", "merge_at")


def from_stated(
    source: str, vit: Vit, *, keep_rate: Rates | None, merge_at: tuple[int, ...] | None
) -> Placed:
    """The steps of the blocks that sample.

    Args:
        source: The file, for messages.
        vit: Geometry.
        keep_rate: Share of the patches, to the power of the place, from which the number of samples
            is counted; of several numbers each is that number itself.
        merge_at: The blocks.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    if vit.differential:
        raise InputError(f"{source}: ats goes by values of heads that attend once; these do twice")
    at = kept.require_places(source, vit.depth, merge_at, "sample their patches")
    blocks: dict[int, tuple[Step, ...]] = {}
    patches, told = vit.patches, []
    for block, samples in zip(at, _samples(source, keep_rate, len(at), patches), strict=True):
        step = Sample(samples)
        blocks[block] = (step,)
        told.append(f"{len(step.points)}")
    found = f"blocks {', '.join(map(str, at))} sample at {', '.join(told)} points, each image "
    stated = {"keep_rate": keep_rate, "merge_at": at}
    return Placed(blocks, stated=stated, found=(f"{found}keeps as many patches as are hit",))


def _samples(source: str, rate: Rates | None, places: int, patches: int) -> tuple[int, ...]:
    """The number of samples of each block.

    Raises:
        InputError: They are not said, or are no such numbers.
    """
    listed = () if rate is None else kept.listed(rate)
    if len(listed) <= 1:
        counts = kept.by_zoo(kept.require_rates(source, rate, places), places, patches)
        if counts[-1] < 1:
            raise InputError(f"{source}: its keep rate {listed[0]:g} leaves no patch to sample")
        return tuple(count + 1 for count in counts)
    if len(listed) != places:
        raise InputError(f"{source}: {len(listed)} numbers of samples for {places} blocks")
    if not all(one.is_integer() and 2 <= one <= MOST_SAMPLES for one in listed):
        raise InputError(
            f"{source}: keep rates {', '.join(f'{one:g}' for one in listed)}; ats takes several as "
            "numbers of samples, whole ones from 2, and the original fails with others"
        )
    return tuple(map(int, listed))

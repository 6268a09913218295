"""Keep the tokens in the middle of clusters, before a few blocks (K-Medoids).

As the TokenReduction zoo has it (Haurum et al., "Which Tokens to Use? Investigating Token Reduction
in Vision Transformers", ICCV workshops 2023, arXiv 2308.04657); METHOD §1.
"""

from __future__ import annotations

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.kept import Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.medoids.step import MOST_ROUNDS, Medoids

BACKBONES = (Vit.kind,)
STATED = ("merge_at", "keep_rate", "cluster_iters", "equal_weight")


def from_stated(
    source: str,
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    keep_rate: Rates | None,
    cluster_iters: int | None = None,
    equal_weight: bool | None = None,
) -> Placed:
    """The clusters of the tokens that enter some blocks.

    Args:
        source: The file, for messages.
        vit: Geometry.
        merge_at: Before which blocks.
        keep_rate: Share of the patches, to the power of the place.
        cluster_iters: Rounds of clustering, which the file's arguments alone tell.
        equal_weight: Whether attention has no say, likewise: then clusters begin at random.

    Raises:
        InputError: Something is missing, or does not fit the model.
    """
    if type(cluster_iters) is not int or type(equal_weight) is not bool:
        raise InputError(
            f"{source} lacks args.cluster_iters (usual 3) and equal_weight (usual False), which "
            "alone tell how it clusters; give the checkpoint as its script wrote it"
        )
    if equal_weight:
        raise InputError(
            f"{source}: args.equal_weight True begins its clusters around a token that is drawn at "
            "random, so that the original gives an image something else each time"
        )
    if not 1 <= cluster_iters <= MOST_ROUNDS:
        raise InputError(f"{source}: args.cluster_iters {cluster_iters}; expected a number from 1 "
                         f"to {MOST_ROUNDS}")  # fmt: skip
    at = kept.require_places(source, vit.depth, merge_at, "its clusters stand before")
    if at[0] == 0:
        raise InputError(
            f"{source}: clusters before block 0 (--merge-at) would go by the attention of a block "
            "before it; the original fails, too"
        )
    rates = kept.require_rates(source, keep_rate, len(at))
    before: dict[int, Step] = {}
    patches, told = vit.patches, []
    for block, tokens in zip(at, kept.by_zoo(rates, len(at), patches), strict=True):
        step = Medoids(tokens, cluster_iters)
        if not step.possible(patches + vit.prefix, vit.prefix):
            raise InputError(
                f"{source}: block {block} is to make {tokens} clusters of {patches} patches; "
                "expected fewer, and at least one"
            )
        told.append(f"{tokens} of {patches}")
        before[block], patches = step, tokens
    found = f"before blocks {', '.join(map(str, at))} {', '.join(told)} patches are kept"
    stated = {"merge_at": at, "keep_rate": keep_rate}
    return Placed(
        before=before, stated=stated, found=(f"{found}, by {cluster_iters} rounds of clustering",)
    )

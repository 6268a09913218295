"""Mix all patch tokens by shares that balance tokens and centres, before a few blocks (Sinkhorn).

Haurum et al., "Which Tokens to Use? Investigating Token Reduction in Vision Transformers", ICCV
workshops 2023, arXiv 2308.04657, as the TokenReduction zoo has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.transport.step import MOST_ROUNDS, Transport

BACKBONES = (Vit.kind,)  # a mixture of all tokens lies nowhere
WEIGHTS = r"cluster_layers\.(0|[1-9][0-9]{0,5})\.v"
STATED = ("merge_at", "made", "sinkhorn_eps", "cluster_iters")


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    made: tuple[int, ...] | None = None,
    sinkhorn_eps: float | None = None,
    cluster_iters: int | None = None,
) -> Placed:
    """The mixtures of the tokens that enter some blocks.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        merge_at: Before which blocks the layers stand.
        made: Tokens that its script would make, where the file tells.
        sinkhorn_eps: What similarities are divided by, which the file's arguments alone tell.
        cluster_iters: Rounds of balancing, likewise.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    if sinkhorn_eps is None or cluster_iters is None:
        raise InputError(
            f"{source} lacks args.sinkhorn_eps (usual 1.0) and args.cluster_iters (usual 3), which "
            "alone tell how shares are balanced; give the checkpoint as its script wrote it"
        )
    if type(cluster_iters) is not int or not 1 <= cluster_iters <= MOST_ROUNDS:
        raise InputError(f"{source}: args.cluster_iters {cluster_iters!r:.40}; expected a number "
                         f"from 1 to {MOST_ROUNDS}")  # fmt: skip
    if type(sinkhorn_eps) not in (int, float) or not sinkhorn_eps > 0:
        raise InputError(f"{source}: args.sinkhorn_eps {sinkhorn_eps!r:.40}; expected above 0")
    layers = kept.layers(source, shapes, merge_at, vit.depth)
    before: dict[int, Transport] = {}
    for block, name in layers.items():
        tokens = shapes[f"{name}.v"][0]
        kept.require_shapes(source, shapes, name, {"v": (tokens, vit.width)})
        before[block] = Transport(name, tokens, float(sinkhorn_eps), cluster_iters)
    kept.require_made(source, before, made)
    found = f"shares balanced in {cluster_iters} rounds at eps {sinkhorn_eps:g}"
    return Placed(before=before, stated={"merge_at": tuple(before)}, found=(found,))

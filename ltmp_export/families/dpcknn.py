"""Cluster patch tokens around peaks of their density, before a few blocks (DPC-KNN).

As the TokenReduction zoo has it (Haurum et al., "Which Tokens to Use? Investigating Token Reduction
in Vision Transformers", ICCV workshops 2023, arXiv 2308.04657); METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.cluster.step import Cluster

BACKBONES = (Vit.kind,)
WEIGHTS = r"cluster_layers\.(0|[1-9][0-9]{0,5})\.score\.(weight|bias)"
STATED = ("merge_at", "counts", "k_neighbors", "equal_weight")


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    counts: tuple[int, ...] | None = None,
    k_neighbors: int | None = None,
    equal_weight: bool | None = None,
) -> Placed:
    """The clusters of the tokens that enter some blocks.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        merge_at: Before which blocks.
        counts: Clusters of each, which the file's arguments alone tell.
        k_neighbors: How many tokens make a density, likewise.
        equal_weight: Whether all tokens weigh the same, likewise.

    Raises:
        InputError: Something is missing, or does not fit the model.
    """
    counts, k_neighbors, equal_weight = _told(source, counts, k_neighbors, equal_weight)
    layers = kept.layers(source, shapes, merge_at, vit.depth)
    if equal_weight:
        raise InputError(
            f"{source}: args.equal_weight True, of whose models no layers weigh tokens, but it "
            f"holds {layers[min(layers)]}.score; another model's arguments stand in it"
        )
    for name in layers.values():
        wanted = {"score.weight": (1, vit.width), "score.bias": (1,)}
        kept.require_shapes(source, shapes, name, wanted)
    return _placed(source, vit, layers, counts, k_neighbors, weighted=True)


def from_stated(
    source: str,
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    counts: tuple[int, ...] | None = None,
    k_neighbors: int | None = None,
    equal_weight: bool | None = None,
) -> Placed:
    """The same of a file whose tokens all weigh the same, which has no layers for that.

    Raises:
        InputError: Something is missing, or does not fit the model.
    """
    counts, k_neighbors, equal_weight = _told(source, counts, k_neighbors, equal_weight)
    if not equal_weight:
        raise InputError(
            f"{source}: its arguments are of family dpcknn, whose tokens weigh by layers "
            "(equal_weight False), but it holds no weights of it"
        )
    places = kept.require_places(source, vit.depth, merge_at, "its clusters stand before")
    layers = {block: f"cluster_layers.{number}" for number, block in enumerate(places)}
    return _placed(source, vit, layers, counts, k_neighbors, weighted=False)


def _told(
    source: str, counts: tuple[int, ...] | None, k_neighbors: int | None, equal_weight: bool | None
) -> tuple[tuple[int, ...], int, bool]:
    """What the file's arguments alone tell.

    Raises:
        InputError: They do not.
    """
    if counts is None or type(k_neighbors) is not int or type(equal_weight) is not bool:
        raise InputError(
            f"{source} lacks args.keep_rate, k_neighbors (usual 5) and equal_weight (usual False), "
            "which alone tell its clusters; give the checkpoint as its script wrote it"
        )
    return counts, k_neighbors, equal_weight


def _placed(
    source: str,
    vit: Vit,
    layers: Mapping[int, str],
    counts: Sequence[int],
    neighbours: int,
    *,
    weighted: bool,
) -> Placed:
    """The clusters before the blocks of these layers.

    Raises:
        InputError: So many cannot be made.
    """
    if len(layers) != len(counts):
        raise InputError(
            f"{source}: its arguments make clusters {len(counts)} times, before {len(layers)} "
            "blocks (--merge-at); expected as many"
        )
    before: dict[int, Step] = {}
    patches = vit.patches
    for (block, name), tokens in zip(layers.items(), counts, strict=True):
        step = Cluster(name, tokens, neighbours, weighted)
        if not step.possible(patches, 0):
            raise InputError(
                f"{source}: block {block} is to make {tokens} clusters of {patches} patches by "
                f"{neighbours} neighbours; expected fewer clusters, and no more neighbours"
            )
        before[block], patches = step, tokens
    found = f"clusters {', '.join(map(str, counts))}, densities of {neighbours} neighbours"
    doubt = "the original adds noise below 1e-6 to densities; exported without it"
    stated = {"merge_at": tuple(before)}
    return Placed(before=before, stated=stated, found=(f"{found}; {doubt}",))

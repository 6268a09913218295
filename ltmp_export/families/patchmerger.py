"""Replace all patch tokens by a few learned mixtures of them, once or several times (PatchMerger).

Renggli et al., "Learning to Merge Tokens in Vision Transformers", 2022, arXiv 2202.12015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.patch_merge.step import PatchMerge

BACKBONES = (Vit.kind,)  # a mixture of all tokens lies nowhere
WEIGHTS = r"cluster_layers\.(0|[1-9][0-9]{0,5})\.(queries|norm\.weight|norm\.bias)"
STATED = ("merge_at", "merge_scale", "made")

_EPS = 1e-5  # of its LayerNorm in both public dialects
_PARTS = {"queries": 2, "norm.weight": 1, "norm.bias": 1}  # and their dimensions


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    merge_scale: str | None,
    made: tuple[int, ...] | None = None,
) -> Placed:
    """The mixtures of the tokens that enter some blocks; nothing happens inside blocks.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        merge_at: Before which blocks the layers stand.
        merge_scale: "one" or "sqrt": the scores as they are, or divided by √C.
        made: Tokens that its script would make, where the file tells.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    layers = sorted({int(key.split(".")[1]) for key in shapes})
    if layers != list(range(len(layers))):
        raise InputError(f"{source} holds the layers {layers} of patchmerger; expected 0, 1, …")
    places = _positions(source, len(layers), merge_at, vit)
    scale = _scale(merge_scale, len(layers), vit)
    assumed: dict[str, Any] = {}
    if merge_at is None:
        assumed["merge_at"] = places
    if merge_scale is None:
        assumed["merge_scale"] = "one" if scale == 1.0 else "1/√C"
    before: dict[int, PatchMerge] = {}
    for index, block in zip(layers, places, strict=True):
        name = f"cluster_layers.{index}"
        _require_parts(source, shapes, name, vit.width)
        before[block] = PatchMerge(name, shapes[f"{name}.queries"][0], scale, _EPS)
    kept.require_made(source, before, made)
    last = vit.depth in before and vit.pool == "token"
    doubt = "PatchMerger behind the last block changes nothing: the class token passes it by"
    return Placed(before=before, assumed=assumed, warnings=(doubt,) if last else ())


def _require_parts(source: str, shapes: Mapping[str, Sequence[int]], name: str, width: int) -> None:
    """Check that a layer is whole.

    Raises:
        InputError: It is not.
    """
    for part, dimensions in _PARTS.items():
        expected = f"[tokens, {width}]" if dimensions == 2 else f"[{width}]"
        shape = shapes.get(f"{name}.{part}")
        if shape is None:
            raise InputError(f"{source}: {name}.{part} is missing; expected {expected}")
        if len(shape) != dimensions or shape[-1] != width or shape[0] < 1:
            raise InputError(f"{source}: {name}.{part} is {list(shape)}; expected {expected}")


def _scale(stated: str | None, layers: int, vit: Vit) -> float:
    """Of the scores; by default what the dialect has: vit-pytorch's has one layer, no class token.

    Raises:
        InputError: The scale is stated in other words than there are.
    """
    sqrt, one = vit.width**-0.5, 1.0
    if stated is None:
        return one if vit.prefix or layers > 1 else sqrt
    if stated not in ("one", "sqrt"):
        raise InputError(f"--merge-scale {stated}: expected one or sqrt")
    return sqrt if stated == "sqrt" else one


def _positions(source: str, layers: int, at: tuple[int, ...] | None, vit: Vit) -> tuple[int, ...]:
    """Before which blocks the layers stand; of vit-pytorch's one, in the middle.

    Raises:
        InputError: They have to be stated, or do not fit.
    """
    if at is None:
        if vit.prefix or layers != 1 or vit.depth < 2:
            raise InputError(
                f"{source} does not say where its {layers} layers of PatchMerger stand; state the "
                "blocks before which they do, like --merge-at 3,6,9"
            )
        return (vit.depth // 2,)
    if len(at) != layers or list(at) != sorted(set(at)) or not 0 <= at[0] <= at[-1] <= vit.depth:
        raise InputError(
            f"--merge-at {','.join(map(str, at))}: expected {layers} rising numbers from 0 to "
            f"{vit.depth}, one for each layer of PatchMerger in {source}"
        )
    return at

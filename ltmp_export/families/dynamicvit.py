"""Keep the tokens that small networks predict to matter, before a few blocks (DynamicViT).

Rao et al., "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", NeurIPS
2021, arXiv 2106.02034, as its official script and the TokenReduction zoo have it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.kept import WRITTEN_PATCHES, Rates
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.predict.step import Predict

BACKBONES = (Vit.kind,)
CLASS_TOKEN = True
WEIGHTS = r"score_predictor\.(0|[1-9][0-9]{0,5})\.(in_conv\.[01]|out_conv\.[024])\.(weight|bias)"
STATED = ("keep_rate", "merge_at", "keep_rule")

_FLOOR = {kept.ZOO: 1e-6, kept.OFFICIAL: 0.0}  # added to what is pooled


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    keep_rate: Rates | None,
    merge_at: tuple[int, ...] | None,
    keep_rule: str | None,
) -> Placed:
    """A selection before each of the blocks.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        keep_rate: Share of the patches, to the power of the place, or one for each place; the
            official code counts from 196, whatever the grid is.
        merge_at: Before which blocks.
        keep_rule: Whose code it is: the zoo's adds 1e-6 to what it pools.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    layers = kept.layers(source, shapes, merge_at, vit.depth)
    at = tuple(layers)
    rates = kept.require_rates(source, keep_rate, len(at))
    if keep_rule is None:
        raise InputError(
            f"{source}: nothing tells whose code its predictors are of; state --keep-rule official "
            "(DynamicViT's own, usual) or zoo (TokenReduction's, which adds 1e-6 to what it pools)"
        )
    floor = _FLOOR[kept.require_rule(keep_rule)]
    before: dict[int, Step] = {}
    patches, told = vit.patches, []
    counts = kept.by_zoo(rates, len(at), patches if keep_rule == kept.ZOO else WRITTEN_PATCHES)
    for (block, name), stay in zip(layers.items(), counts, strict=True):
        kept.require_shapes(source, shapes, name, _parts(vit.width))
        if stay < 1:
            raise InputError(f"{source}: its keep rate leaves no patch at block {block}")
        if stay < patches:
            before[block] = Predict(name, stay, floor)
        told.append(f"{min(stay, patches)} of {patches}")
        patches = min(stay, patches)
    found = f"before blocks {', '.join(map(str, at))} {', '.join(told)} patches are kept"
    doubts = () if before else ("its keep rate keeps all patches",)
    stated = {"keep_rate": keep_rate, "merge_at": at, "keep_rule": keep_rule}
    return Placed(before=before, stated=stated, found=(found,), warnings=doubts)


def _parts(width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a predictor's weights."""
    half, quarter = width // 2, width // 4
    sides = {"in_conv.1": (width, width), "out_conv.0": (half, width)}
    sides |= {"out_conv.2": (quarter, half), "out_conv.4": (2, quarter)}
    wanted: dict[str, tuple[int, ...]] = {f"{n}.weight": shape for n, shape in sides.items()}
    wanted |= {f"{n}.bias": shape[:1] for n, shape in sides.items()}
    return wanted | {f"in_conv.0.{part}": (width,) for part in ("weight", "bias")}

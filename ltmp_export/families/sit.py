"""Mix all patch tokens by shares that two linear layers give them, before a few blocks (SiT).

Zong et al., "Self-slimmed Vision Transformer", ECCV 2022, arXiv 2111.12624, as the TokenReduction
zoo has it; METHOD §1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan import kept
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.slim.step import Slim

BACKBONES = (Vit.kind,)  # a mixture of all tokens lies nowhere
WEIGHTS = r"cluster_layers\.(0|[1-9][0-9]{0,5})\.(scale|weight\.[013]\.(weight|bias))"
STATED = ("merge_at", "made")


def from_weights(
    source: str,
    shapes: Mapping[str, Sequence[int]],
    vit: Vit,
    *,
    merge_at: tuple[int, ...] | None,
    made: tuple[int, ...] | None = None,
) -> Placed:
    """The mixtures of the tokens that enter some blocks.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS`, by name.
        vit: Geometry.
        merge_at: Before which blocks the layers stand.
        made: Tokens that its script would make, where the file tells.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    layers = kept.layers(source, shapes, merge_at, vit.depth)
    before: dict[int, Slim] = {}
    for block, name in layers.items():
        last, first = (shapes.get(f"{name}.weight.{at}.weight", ()) for at in (3, 1))
        if len(last) != 2 or len(first) != 2:
            raise InputError(f"{source}: {name} lacks its linear layers weight.1 and weight.3")
        tokens, hidden = last
        wanted: dict[str, tuple[int, ...]] = {"weight.3.bias": (tokens,), "scale": (1, 1, 1)}
        wanted |= {"weight.1.weight": (hidden, vit.width), "weight.1.bias": (hidden,)}
        wanted |= {f"weight.0.{part}": (vit.width,) for part in ("weight", "bias")}
        kept.require_shapes(source, shapes, name, wanted)
        before[block] = Slim(name, tokens, hidden)
    kept.require_made(source, before, made)
    return Placed(before=before, stated={"merge_at": tuple(before)})

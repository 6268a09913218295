"""Merge the tokens of a block by a constant matrix and recover them behind it (Prune-and-Merge).

Checkpoints as the authors' tools write them, merging blocks told by their matrices alone; METHOD
§1. Heads have 64 channels, whatever the width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.errors import InputError
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.merge_matrix.step import MergeMatrix

BACKBONES = (Vit.kind,)  # a mixture of all tokens lies nowhere
WEIGHTS = r"blocks\.(0|[1-9][0-9]{0,5})\.attn\.(merge_matrix|recover_matrix|token_mask)"
UNREAD = r"blocks\.(0|[1-9][0-9]{0,5})\.attn\.bias"  # as long as either side: two tools differ
HEAD_WIDTH = 64


def from_weights(source: str, shapes: Mapping[str, Sequence[int]], vit: Vit) -> Placed:
    """A merge before each block that has the matrices.

    Args:
        source: The file, for messages.
        shapes: Of `WEIGHTS` and `UNREAD`, by name.
        vit: Geometry.

    Raises:
        InputError: A tensor is missing or does not fit the model.
    """
    before: dict[int, Step] = {}
    for block in sorted({int(key.split(".")[1]) for key in shapes}):
        if block >= vit.depth:
            raise InputError(f"{source} merges in block {block}; the model has {vit.depth} blocks")
        name = f"blocks.{block}.attn"
        merge = shapes.get(f"{name}.merge_matrix", ())
        tokens = merge[0] if len(merge) == 2 else 0
        expected = {
            "merge_matrix": (tokens, vit.tokens),
            "recover_matrix": (vit.tokens, tokens),
            "token_mask": (vit.tokens,),
        }
        for part, shape in expected.items():
            _require(source, f"{name}.{part}", shapes.get(f"{name}.{part}"), shape)
        if tokens > vit.tokens:
            raise InputError(
                f"{source}: {name}.merge_matrix makes {tokens} tokens of {vit.tokens}; expected "
                "fewer"
            )
        before[block] = MergeMatrix(name, tokens, vit.tokens)
    run = ", ".join(str(step.after(vit.tokens, vit.prefix)) for step in before.values())
    blocks = ", ".join(map(str, before))
    return Placed(
        before=before,
        found=(f"blocks {blocks} run on {run} tokens, {vit.tokens} again behind each",),
    )


def _require(
    source: str, name: str, shape: Sequence[int] | None, expected: tuple[int, ...]
) -> None:
    """Check a tensor's shape.

    Raises:
        InputError: It is another, or there is no such tensor.
    """
    sides = ["tokens of the block" if not side else str(side) for side in expected]
    if shape is None:
        raise InputError(f"{source}: {name} is missing; expected [{', '.join(sides)}]")
    if tuple(shape) != expected or not all(expected):
        raise InputError(f"{source}: {name} is {list(shape)}; expected [{', '.join(sides)}]")

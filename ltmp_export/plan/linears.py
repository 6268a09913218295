"""Linear layers, listed once: where most of the multiply-accumulates are. Here those of a ViT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ltmp_export.plan import mlps, parallel

if TYPE_CHECKING:
    from ltmp_export.plan.geometry import Geometry
    from ltmp_export.plan.vit import Vit

# What an image gives a layer a row of: each patch, each of four times the size, each token that the
# block receives, each that it keeps, each behind all blocks, or the one that is classified.
PATCHES, COARSE, RECEIVED, KEPT = "patches", "coarse", "received", "kept"
LEFT, POOLED = "left", "pooled"
# Convolutions that are linear in the pixels of a patch.
EMBEDDING, COARSE_EMBEDDING = "patch_embed.proj", "patch_embed.coarse"


class Linear(NamedTuple):
    """A linear layer: rows [T, ins] → [T, outs].

    Attributes:
        path: Of its weights, by timm's names.
        ins: Inputs.
        outs: Outputs.
        rows: What it has a row of.
        block: Index of its block, or None.
        norm: Path of the LayerNorm whose outputs it alone is given, or None: channels may be
            balanced between the two.
        fine: Whether int8 files give it 16 bits where decisions are protected.
        scope: The graph's name of it, where that does not follow from timm's names of a ViT.
    """

    path: str
    ins: int
    outs: int
    rows: str
    block: int | None = None
    norm: str | None = None
    fine: bool = False
    scope: str = ""

    @property
    def written(self) -> str:
        """The graph's name of it: of "blocks.3.attn.qkv" that is "block_03/attn/qkv"."""
        if self.scope:
            return self.scope
        first, *rest = self.path.split(".")
        if first != "blocks":
            return f"head/{self.path.rpartition('.')[2]}"
        return "/".join((f"block_{int(rest[0]):02d}", *rest[1:]))


def of_vit(vit: Vit) -> Iterator[Linear]:
    """All of them in the order of the computation.

    Those that are `fine` are those by which the first block changes the tokens, since every later
    decision rests on these, and the head. On the digits, mean of three sets to calibrate on, 92.6 %
    of the token counts are float32's then; without fc1 87 %, without fc2 88 %, without proj 91 %,
    with none of them 86 %, with qkv, too, 92 %.
    """
    c, inner = vit.width, vit.heads * vit.head_width
    (height, width), channels = vit.patch_size, vit.in_chans
    if vit.stem is not None:
        (height, width), channels = vit.stem.patch or (0, 0), vit.stem.width
    patch = height * width * channels
    if patch:
        yield Linear(EMBEDDING, patch, c, PATCHES)
    if vit.coarse:
        yield Linear(COARSE_EMBEDDING, 4 * patch, c, COARSE)
    for block in range(vit.depth):
        path, first = f"blocks.{block}", block == 0
        if vit.parallel:
            yield from _of_parallel(vit, block)
            continue
        norms = [None if vit.post_norm else f"{path}.norm{half}" for half in (1, 2)]
        yield Linear(f"{path}.attn.qkv", c, 3 * inner, RECEIVED, block, norms[0])
        yield Linear(f"{path}.attn.proj", inner, c, RECEIVED, block, fine=first)
        for layer in mlps.layers(vit.mlp, c, vit.mlp_width):
            norm = norms[1] if layer.alone else None
            at = f"{path}.mlp.{layer.leaf}"
            yield Linear(at, layer.ins, layer.outs, KEPT, block, norm, first)
    if vit.latent is not None:
        yield from vit.latent.linears(c)
    for path in ("head", "head_dist")[: vit.classifiers]:
        yield Linear(path, vit.pooled_width, vit.classes, POOLED, fine=True)


def _of_parallel(vit: Vit, block: int) -> Iterator[Linear]:
    """Those of a block whose MLP runs on what attention runs on."""
    path, scope = f"blocks.{block}", f"block_{block:02d}/attn"
    for leaf, ins, outs in parallel.layers(vit.parallel, vit.width, vit.mlp_width):
        norm = f"{path}.in_norm" if leaf == "in_proj" else None
        at = f"{path}.{leaf}"
        yield Linear(at, ins, outs, RECEIVED, block, norm, block == 0, f"{scope}/{leaf}")


def rounded(geometry: Geometry) -> list[Linear]:
    """Those that compute in int8 where a file does: all but the convolutions."""
    return [layer for layer in geometry.linears() if layer.rows not in (PATCHES, COARSE)]

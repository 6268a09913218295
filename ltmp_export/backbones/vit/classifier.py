"""From the tokens that the last block leaves to logits, in ONNX."""

from __future__ import annotations

from ltmp_export.backbones.vit import pooling
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.graph.builder import Name
from ltmp_export.graph.ragged import Layout


def classify(layers: VitLayers, x: Name, size: Name | None, layout: Layout) -> Name:
    """Tokens → logits [B, classes].

    Args:
        layers: The model's.
        x: Rows [T, C].
        size: How many patches each token stands for, or None while all are 1.
        layout: Where the tokens of an image are.
    """
    if layers.vit.distilled:
        return _distilled(layers, x, layout)
    if layers.vit.pool == "token":
        pooled = layers.norm("norm", layers.g.op("Gather", x, layout.class_rows(), axis=0))
    else:
        pooled = _pooled(layers, layers.norm("norm", x), size, layout)
    logits = layers.linear("head", layers.norm("fc_norm", pooled))
    return layers.exact(logits)


def _pooled(layers: VitLayers, x: Name, size: Name | None, layout: Layout) -> Name:
    """Normalised tokens, all of them pooled: [B, C]."""
    vit = layers.vit
    if vit.latent is None:
        return layout.mean_of_patches(x, size, vit.unpooled)
    return pooling.pool(
        layers, vit.latent, x, size, layout,
        width=vit.width, spared=vit.unpooled, largest=vit.tokens,
    )  # fmt: skip


def _distilled(layers: VitLayers, x: Name, layout: Layout) -> Name:
    """The mean of what the two heads say, each of its own token, the first two."""
    g, row = layers.g, layout.class_rows()
    said = []
    for path, place in (("head", row), ("head_dist", g.op("Add", row, g.index(1)))):
        token = layers.norm("norm", g.op("Gather", x, place, axis=0))  # [B, C]
        said.append(layers.exact(layers.linear(path, token)))
    return g.op("Mul", g.op("Add", *said), g.number(0.5))

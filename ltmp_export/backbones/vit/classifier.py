"""From the tokens that the last block leaves to features and logits, in ONNX."""

from __future__ import annotations

from collections.abc import Iterator

from ltmp_export.backbones.vit import pooling
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.graph.builder import Name
from ltmp_export.graph.means import mean_of_patches
from ltmp_export.graph.ragged import Layout
from ltmp_export.plan.vit import CLASS_AND_MEAN


def classify(
    layers: VitLayers, x: Name, size: Name | None, layout: Layout, largest: int | None
) -> Name:
    """Tokens → logits [B, classes].

    Args:
        layers: The model's.
        x: Rows [T, C].
        size: How many patches each token stands for, or None while all are 1.
        layout: Where the tokens of an image are.
        largest: As of `Layout.score_bias`.
    """
    if not layers.vit.distilled:
        return layers.exact(layers.linear("head", features(layers, x, size, layout, largest)))
    paths = ("head", "head_dist")
    return _mean(layers, [
        layers.exact(layers.linear(path, token))
        for path, token in zip(paths, _own_tokens(layers, x, layout), strict=True)
    ])  # fmt: skip


def features(
    layers: VitLayers, x: Name, size: Name | None, layout: Layout, largest: int | None
) -> Name:
    """Tokens → what a classifier is given [B, C]; arguments as of `classify`.

    Of a distilled model, whose heads are given a token each, the mean of the two.
    """
    if layers.vit.distilled:
        return _mean(layers, list(_own_tokens(layers, x, layout)))
    if layers.vit.pool == "token":
        pooled = layers.norm("norm", layers.g.op("Gather", x, layout.class_rows(), axis=0))
    else:
        pooled = _pooled(layers, layers.norm("norm", x), size, layout, largest)
    return layers.norm("fc_norm", pooled)


def _pooled(
    layers: VitLayers, x: Name, size: Name | None, layout: Layout, largest: int | None
) -> Name:
    """Normalised tokens, all of them pooled: [B, C], or [B, 2C] with the class token in front."""
    vit = layers.vit
    if vit.latent is None:
        mean = mean_of_patches(layout, x, size, vit.unpooled, whole=largest is not None)
        if vit.pool != CLASS_AND_MEAN:
            return mean
        token = layers.g.op("Gather", x, layout.class_rows(), axis=0)
        return layers.g.op("Concat", token, mean, axis=1)
    return pooling.pool(
        layers, vit.latent, x, size, layout,
        width=vit.width, spared=vit.unpooled, largest=largest,
    )  # fmt: skip


def _own_tokens(layers: VitLayers, x: Name, layout: Layout) -> Iterator[Name]:
    """What the two heads of a distilled model are given [B, C], the first two tokens."""
    g, first = layers.g, layout.class_rows()
    for row in (first, g.op("Add", first, g.index(1))):
        yield layers.norm("norm", g.op("Gather", x, row, axis=0))


def _mean(layers: VitLayers, two: list[Name]) -> Name:
    """Of two."""
    return layers.g.op("Mul", layers.g.op("Add", *two), layers.g.number(0.5))

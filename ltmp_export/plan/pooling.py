"""Attention pooling (timm's `AttentionPoolLatent`): a learned query attends to the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ltmp_export.plan import linears, mlps

PATH = "attn_pool"
# What a float16 file may compute in float32 beside linear layers.
PLACES = tuple(f"{PATH}.{leaf}" for leaf in ("q", "scores", "mixed", "mlp.act"))


@dataclass(frozen=True)
class AttentionPool:
    """What shapes of other weights do not say of it. Keys have the width of tokens.

    Attributes:
        heads: Of the attention.
        mlp_width: Channels inside its MLP, a plain one.
        activation: Of its MLP.
    """

    heads: int
    mlp_width: int
    activation: str

    def require_sound(self, width: int) -> None:
        """Check that tokens of so many channels can be pooled.

        Raises:
            ValueError: They cannot.
        """
        sizes = (self.heads, self.mlp_width)
        if not all(type(size) is int and 0 < size < 2**31 for size in sizes) or width % self.heads:
            raise ValueError(f"attention pooling of sizes {sizes}")

    def linears(self, width: int) -> Iterator[linears.Linear]:
        """Its linear layers; the query is the same for all images, and its projection none."""
        yield linears.Linear(f"{PATH}.kv", width, 2 * width, linears.LEFT)
        yield linears.Linear(f"{PATH}.proj", width, width, linears.POOLED, fine=True)
        for layer in mlps.layers(mlps.PLAIN, width, self.mlp_width):
            path, norm = f"{PATH}.mlp.{layer.leaf}", f"{PATH}.norm" if layer.alone else None
            rows = linears.POOLED
            yield linears.Linear(path, layer.ins, layer.outs, rows, norm=norm, fine=True)

    def products(self, rows: int, width: int) -> int:
        """Multiply-accumulates of the query with keys and of the weights with values."""
        return 2 * rows * width

"""The geometry of ViTs that tell attention where tokens lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ltmp_export.plan import positions
from ltmp_export.plan.linears import Linear
from ltmp_export.plan.vit import Vit


@dataclass(frozen=True)
class Positioned(Vit):
    """A ViT whose attention knows where tokens lie, beside what `Vit` tells.

    Attributes:
        positions: "rotary", "relative", or "" where only an embedding tells.
        half: Of rotary ones, whether channels d and d + D / 2 turn together, else 2d and 2d + 1.
        own_turns: Likewise, whether every block and head turns in a way of its own.
        apart: Whether queries, keys and values have a linear layer each.
        kv_heads: Heads of keys and values of each block; () where as many as of queries.
    """

    positions: str = ""
    half: bool = False
    own_turns: bool = False
    apart: bool = False
    kv_heads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        switches = (self.half, self.own_turns, self.apart)
        if self.positions not in positions.KINDS or not all(type(s) is bool for s in switches):
            raise ValueError(f"positions {self.positions!r:.50} with switches {switches}")
        if self.kv_heads and not (
            len(self.kv_heads) == self.depth
            and self.apart
            and all(type(n) is int and n > 0 and self.heads % n == 0 for n in self.kv_heads)
        ):
            raise ValueError(f"heads of keys and values {self.kv_heads!r:.50}")

    def keys_of(self, block: int) -> int:
        """Heads of keys, and of values, of a block."""
        return self.kv_heads[block] if self.kv_heads else self.heads

    def linears(self) -> Iterator[Linear]:
        """Those of a ViT, with queries, keys and values apart where they are."""
        for layer in super().linears():
            if layer.block is None or not (self.apart and layer.path.endswith(".attn.qkv")):
                yield layer
                continue
            path = layer.path.removesuffix("qkv")
            widths = (self.heads, self.keys_of(layer.block), self.keys_of(layer.block))
            for name, heads in zip("qkv", widths, strict=True):
                outs = heads * self.head_width
                yield layer._replace(path=f"{path}{name}_proj", outs=outs, norm=None)

    def words(self) -> tuple[str, str]:
        """Architecture, and patches, for a person."""
        architecture, patches = super().words()
        told = {positions.ROTARY: "rotary positions", positions.RELATIVE: "relative position bias"}
        more = told.get(self.positions, "positions embedded")
        return f"{architecture}, {more}", patches

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata; see `from_json`."""
        usual = {one.name: one.default for one in fields(self)}
        own = Positioned.__annotations__
        values = super().to_json()
        return {k: v for k, v in values.items() if k not in own or v != usual[k]}

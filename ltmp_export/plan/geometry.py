"""What a plain Vision Transformer is here: geometry and the few facts weights do not tell.

Shape letters used throughout the package: B images, N tokens, T packed rows, C channels,
H heads, D channels per head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu")
POOLS = ("token", "avg")
MOST_PIXELS = 2**16  # of a side

Size: TypeAlias = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Vit:
    """What the weights' names and shapes do not say about a plain ViT, plus its geometry.

    Attributes:
        name: timm's name, the name the file gives itself, or "vit".
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels.
        width: Channels C of a token.
        mlp_width: Channels inside the MLP.
        heads: Attention heads H.
        head_width: Channels D per head.
        norm_eps: Epsilon of every LayerNorm.
        activation: "gelu", "gelu_tanh", "quick_gelu", "silu" or "relu".
        pool: "token" (class token) or "avg" (mean over the patches that tokens stand for).
        prefix: Tokens before the patches: 1 class token, 2 with a distillation token, or none.
        coarse: Whether patches twice as high and wide are embedded, too, and added.
    """

    name: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_chans: int
    classes: int
    depth: int
    width: int
    mlp_width: int
    heads: int
    head_width: int
    norm_eps: float
    activation: str
    pool: str
    prefix: int = 1  # files made before it was written have a class token
    coarse: bool = False  # not written where it is not

    def __post_init__(self) -> None:
        sizes: tuple[int, ...] = (
            *self.image_size,
            *self.patch_size,
            self.in_chans,
            self.classes,
            self.depth,
        )
        sizes += (self.width, self.mlp_width, self.heads, self.head_width)
        if len(sizes) != 11 or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"a ViT of sizes {sizes}; expected 11 positive integers")
        pools = {0: ("avg",), 1: ("token", "avg"), 2: ("token",)}
        if type(self.prefix) is not int or self.pool not in pools.get(self.prefix, ()):
            raise ValueError(f"a ViT of {self.prefix!r} prefix tokens with {self.pool!r} pooling")
        whole = all(
            side % (2 * patch) == 0
            for side, patch in zip(self.image_size, self.patch_size, strict=True)
        )
        if type(self.coarse) is not bool or (self.coarse and not whole):
            raise ValueError(f"images of {self.image_size} are no whole number of coarse patches")

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        rows, columns = self.grid
        return rows * columns

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        (h, w), (ph, pw) = self.image_size, self.patch_size
        return h // ph, w // pw

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block: patches and those before them."""
        return self.patches + self.prefix

    @property
    def distilled(self) -> bool:
        """Whether there is a distillation token, with a classifier of its own."""
        return self.prefix == 2

    @property
    def classifiers(self) -> int:
        """Linear heads; the logits are their mean."""
        return 2 if self.distilled else 1

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_chans, *self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata; see `from_json`."""
        values = asdict(self)
        return values if self.coarse else {k: v for k, v in values.items() if k != "coarse"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vit:
        """The inverse of `to_json`."""
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**pairs)

"""A patch embedding of two scales, added: `patch_embed.proj.*` and `patch_embed.coarse.*`."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor, nn

COARSE = "patch_embed.coarse.weight"


class MultiScalePatchEmbed(PatchEmbed):  # type: ignore[misc]  # timm is untyped
    """timm's embedding of patches, plus one of patches twice as high and wide.

    Each of the coarse patches is added to the four that lie in it, before the norm, if there is
    one, and before positions (Multi-Scale and Token Mergence, assumed in METHOD §1).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        twice = (2 * self.patch_size[0], 2 * self.patch_size[1])
        self.coarse = nn.Conv2d(
            self.proj.in_channels, self.proj.out_channels, kernel_size=twice, stride=twice,
            bias=self.proj.bias is not None,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, height, width] → [B, N, C]."""
        coarse = self.coarse(images).repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = (self.proj(images) + coarse).flatten(2).transpose(1, 2)
        normed: Tensor = self.norm(x)
        return normed

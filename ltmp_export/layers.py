"""The layers of a ViT in ONNX that treat each token, or each patch, by itself; and PatchMerger's.

Which layers there are follows from the names of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltmp_export.graph import GraphBuilder, Name
from ltmp_export.plan import PatchMerge
from ltmp_export.vit import Vit


@dataclass(frozen=True)
class Layers:
    """Writes them.

    Attributes:
        g: Where to.
        vit: Geometry.
    """

    g: GraphBuilder
    vit: Vit

    def linear(self, path: str, x: Name) -> Name:
        """A linear layer on rows [T, in] → [T, out], with the bias if the weights have one."""
        inputs = [x, self.g.weight(f"{path}.weight")]
        if f"{path}.bias" in self.g.weights:
            inputs.append(self.g.weight(f"{path}.bias"))
        return self.g.op("Gemm", *inputs, transB=1)

    def norm(self, path: str, x: Name) -> Name:
        """LayerNorm if the weights have one of that name, else nothing."""
        if f"{path}.weight" not in self.g.weights:
            return x
        weight, bias = self.g.weight(f"{path}.weight"), self.g.weight(f"{path}.bias")
        return self.g.layer_norm(x, weight, bias, self.vit.norm_eps)

    def layer_scale(self, path: str, x: Name) -> Name:
        """LayerScale if the weights have one of that name, else nothing."""
        if f"{path}.gamma" not in self.g.weights:
            return x
        return self.g.op("Mul", x, self.g.weight(f"{path}.gamma"))

    def mlp(self, path: str, x: Name) -> Name:
        """Normalised rows [T, C] → [T, C], without the residual."""
        hidden = self.g.activation(self.vit.activation, self.linear(f"{path}.mlp.fc1", x))
        hidden = self.linear(f"{path}.mlp.fc2", self.norm(f"{path}.mlp.norm", hidden))
        return self.layer_scale(f"{path}.ls2", hidden)

    def patches(self, images: Name) -> Name:
        """[B, channels, height, width] → embedded patches [B, patches, C]."""
        g, vit = self.g, self.vit
        if "patch_embed.norm_pre.weight" in g.weights:
            return self._normed_patches(images)
        inputs = [images, g.weight("patch_embed.proj.weight")]
        if "patch_embed.proj.bias" in g.weights:
            inputs.append(g.weight("patch_embed.proj.bias"))
        grid = g.op(
            "Conv", *inputs, strides=list(vit.patch_size), kernel_shape=list(vit.patch_size)
        )
        x = g.reshape(grid, 0, vit.width, vit.patches)
        return self.norm("patch_embed.norm", g.op("Transpose", x, perm=[0, 2, 1]))

    def _normed_patches(self, images: Name) -> Name:
        """The same where the pixels of a patch are normalised before they are projected."""
        g, vit = self.g, self.vit
        (height, width), (ph, pw) = vit.image_size, vit.patch_size
        x = g.reshape(images, 0, vit.in_chans, height // ph, ph, width // pw, pw)
        x = g.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5])  # [B, rows, columns, channels, ph, pw]
        x = g.reshape(x, -1, vit.in_chans * ph * pw)  # [B * patches, pixels]
        weight = g.reshape(g.weight("patch_embed.proj.weight"), vit.width, -1)
        inputs = [self.norm("patch_embed.norm_pre", x), weight]
        if "patch_embed.proj.bias" in g.weights:
            inputs.append(g.weight("patch_embed.proj.bias"))
        x = self.norm("patch_embed.norm", g.op("Gemm", *inputs, transB=1))
        return g.reshape(x, -1, vit.patches, vit.width)

    def patch_merge(self, merge: PatchMerge, x: Name) -> Name:
        """Tokens [B, N, C] → [B, prefix + M, C], the patches mixed anew (see `plan.PatchMerge`)."""
        g, prefix = self.g, self.vit.prefix
        weight, bias = (g.weight(f"{merge.name}.norm.{part}") for part in ("weight", "bias"))
        patches = g.slice(x, 1, prefix) if prefix else x
        normed = g.layer_norm(patches, weight, bias, merge.eps)
        queries = g.op("Transpose", g.weight(f"{merge.name}.queries"), perm=[1, 0])  # [C, M]
        scores = g.op("Mul", g.op("MatMul", normed, queries), g.number(merge.scale))  # [B, N, M]
        shares = g.op("Softmax", g.op("Transpose", scores, perm=[0, 2, 1]), axis=-1)
        mixed = g.op("MatMul", shares, normed)  # [B, M, C]
        return g.op("Concat", g.slice(x, 1, 0, prefix), mixed, axis=1) if prefix else mixed

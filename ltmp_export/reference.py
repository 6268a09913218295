"""The method as its paper states it: eager, one image at a time, on timm's own submodules.

This is what an exported file is compared with. It shares no code with the exported form.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor
from torch.nn.functional import layer_norm

from ltmp_export.errors import InputError
from ltmp_export.plan.plan import PatchMerge, Plan, Step, dense_plan
from ltmp_export.precision import eager
from ltmp_export.precision.eager import Taken
from ltmp_export.steps.eager import Choice, Decision, Tokens, apply


@dataclass(frozen=True)
class Trace:
    """One image through the reference.

    Attributes:
        logits: [classes].
        embedded: [N, C] tokens before the first block.
        tokens: [n, C] after each block.
        sizes: [n] patches per token, after each block.
        decisions: For each block, what its steps saw and chose.
        excess: Of each int8 layer, see `precision.eager.RoundedLinear`.
    """

    logits: Tensor
    embedded: Tensor
    tokens: tuple[Tensor, ...]
    sizes: tuple[Tensor, ...]
    decisions: tuple[tuple[Decision, ...], ...]
    excess: Mapping[str, float]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens after each block, class token included."""
        return tuple(map(len, self.tokens))


class Reference:
    """Runs a plan on a timm model, unrewritten, one image at a time.

    Args:
        model: A plain timm ViT with the weights, in eval mode, that `vit.describe.describe`
        accepts. plan: The steps of each block.
        dtype: Precision of everything; float64 copies the model.
    """

    def __init__(
        self, model: VisionTransformer, plan: Plan, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
        self.plan = plan
        self.dtype = dtype

    @torch.inference_mode()
    def run(
        self,
        image: Tensor,
        forced: Sequence[Sequence[Choice]] | None = None,
        taken: Mapping[str, Taken] | None = None,
    ) -> Trace:
        """Classify one normalised image [channels, height, width].

        Args:
            image: The image.
            forced: For each block and step, what to take instead of the own decision; the trace
                holds the own decisions all the same. Blocks beyond its end decide freely.
            taken: What int8 layers are to make of their inputs; those not in it round freely.
        """
        eager.set_taken(self.model, taken or {})
        model = self.model
        embedded = model._pos_embed(model.patch_embed(image.to(self.dtype)[None]))  # [1, N, C]
        x = model.norm_pre(embedded)[0]  # [N, C]
        size = x.new_ones(len(x))
        tokens, sizes, decisions = [], [], []
        choices: list[Sequence[Choice | None]] = list(forced or ())
        choices += [[None] * len(steps) for steps in self.plan.blocks[len(choices) :]]
        for index, (steps, chosen) in enumerate(zip(self.plan.blocks, choices, strict=True)):
            x, size = self._entering(index, x, size)
            x, size, decided = self._block(model.blocks[index], steps, chosen, x, size)
            tokens.append(x)
            sizes.append(size)
            decisions.append(decided)
        x, size = self._entering(len(tokens), x, size)
        logits = self._classify(model.norm(x), size)
        excess = eager.excesses(self.model)
        return Trace(logits, embedded[0], tuple(tokens), tuple(sizes), tuple(decisions), excess)

    def _entering(self, block: int, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, C] and sizes [N] as they enter a block, or after all blocks the head."""
        merge = self.plan.patch_merges.get(block)
        if merge is None:
            return x, size
        prefix = self.model.num_prefix_tokens
        weights = {
            part: self.plan.parameters[f"{merge.name}.{part}"].to(self.dtype)
            for part in ("queries", "norm.weight", "norm.bias")
        }
        mixed = patch_merge(x[prefix:], weights, merge)
        return torch.cat([x[:prefix], mixed]), size.new_ones(prefix + len(mixed))

    def _block(
        self,
        block: Block,
        steps: Sequence[Step],
        choices: Sequence[Choice | None],
        x: Tensor,
        size: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[Decision, ...]]:
        attended, importance, metric = attention(block.attn, block.norm1(x), size)
        tokens = Tokens(x + block.ls1(attended), size, importance, metric)
        taken = []
        for step, choice in zip(steps, choices, strict=True):
            tokens, decision = apply(step, tokens, choice)
            taken.append(decision)
        x = tokens.x
        return x + block.ls2(block.mlp(block.norm2(x))), tokens.size, tuple(taken)

    def _classify(self, x: Tensor, size: Tensor) -> Tensor:
        """[N, C], [N] → [classes]; of a distilled model the mean of two heads' own tokens."""
        model = self.model
        if isinstance(model, VisionTransformerDistilled):
            mean: Tensor = torch.stack([model.head(x[0]), model.head_dist(x[1])]).mean(0)
            return mean
        logits: Tensor = model.head(model.fc_norm(self._pool(x, size)))
        return logits

    def _pool(self, x: Tensor, size: Tensor) -> Tensor:
        """[N, C], [N] → [C]: the class token, or the mean over the patches that tokens stand for.

        With no patch token left, average pooling gives zeros.
        """
        if self.model.global_pool == "token":
            return x[0]
        prefix = self.model.num_prefix_tokens
        x, size = x[prefix:], size[prefix:]
        return (x * size[:, None]).sum(0) / size.sum().clamp(min=1)


def attention(attn: Attention, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Proportional attention (METHOD §1, steps 1-2; arXiv 2210.09461).

    Args:
        attn: timm's attention module; with a `precision.eager.MeanKey` if the metric has a
            projection of its own.
        x: [N, C] normalised tokens.
        size: [N] patches per token.

    Returns:
        The projected output [N, C], the importance [N] (row 0 +inf), the metric [N, D] (unit norm).
    """
    tokens, heads = len(x), attn.num_heads
    q, k, v = attn.qkv(x).reshape(tokens, 3, heads, -1).permute(1, 2, 0, 3)  # [H, N, D] each
    q, k = attn.q_norm(q), attn.k_norm(k)
    weights = (q * attn.scale @ k.mT + size.log()).softmax(-1)  # [H, N, N]
    out = attn.proj(attn.norm((weights @ v).transpose(0, 1).reshape(tokens, -1)))
    importance = weights.mean(0).mean(0)
    importance[0] = torch.inf
    metric = attn.mean_key(x) if hasattr(attn, "mean_key") else k.mean(0)
    return out, importance, metric / metric.norm(dim=-1, keepdim=True)


def patch_merge(x: Tensor, weights: Mapping[str, Tensor], merge: PatchMerge) -> Tensor:
    """PatchMerger (arXiv 2202.12015): [N, C] → [M, C], see `plan.PatchMerge`.

    Args:
        x: [N, C] patch tokens.
        weights: `queries` [M, C], `norm.weight` [C] and `norm.bias` [C].
        merge: Scale and epsilon.
    """
    normed = layer_norm(x, x.shape[-1:], weights["norm.weight"], weights["norm.bias"], merge.eps)
    scores = merge.scale * weights["queries"] @ normed.mT  # [M, N]
    return scores.softmax(-1) @ normed


def verify_against_timm(
    model: VisionTransformer, input_size: tuple[int, int, int], name: str
) -> None:
    """Compare with timm's own forward what the reference computes when nothing is reduced.

    Whatever timm does in a forward that neither the reference nor the exported form knows of
    shows here, before anything is exported.

    Raises:
        InputError: They differ by more than rounding.
    """
    image = torch.rand(input_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        wanted = model(image[None])[0]
    got = Reference(model, dense_plan(len(model.blocks))).run(image).logits
    error = float((wanted - got).abs().max())
    allowed = 1e-4 * max(1.0, float(wanted.abs().max()))  # measured: 1e-6 on DeiT-S
    if not error <= allowed:
        raise InputError(
            f"timm's own forward of {name} differs from the plain ViT this tool knows by "
            f"{error:.2g} (allowed {allowed:.1g}): the model has a feature that is not supported"
        )

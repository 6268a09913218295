"""What one would try first: the method word for word in PyTorch, and its export by torch.onnx.

One image at a time, shapes that depend on the data, boolean masks. Written from METHOD §1 alone,
for comparison; `reference` is the oracle, and what is timed here must agree with it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import AttentionPoolLatent
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.plan.plan import Plan
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune

OPSET = 18  # the oldest that the exporter writes without converting down
TOLERANCE = 1e-4  # relative to the largest logit; measured: 2e-6 on the digits


def untranslated(model: Any, plan: Plan) -> str:
    """Why there is no literal translation, or nothing: it is one of thresholds in plain blocks."""
    if plan.static:
        return "there is no literal form of static shapes"
    parts = (type(part) for block in model.blocks for part in (block, getattr(block, "attn", None)))
    other = next((part.__name__ for part in parts if part not in (Block, Attention)), "")
    return f"there is no literal form of {other}" if other else ""


class LiteralViT(nn.Module):
    """A ViT under a plan of thresholds, one image [1, channels, H, W] → logits [1, classes].

    Raises:
        ValueError: The plan has other steps.
    """

    def __init__(self, model: VisionTransformer, plan: Plan) -> None:
        super().__init__()
        if reason := untranslated(model, plan):
            raise ValueError(reason)
        self.model = model
        self.plan = plan

    def forward(self, images: Tensor) -> Tensor:
        """Classify one image."""
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))[0]  # [N, C]
        size, protected = x.new_ones(x.shape[0]), model.num_prefix_tokens
        for block, steps in zip(model.blocks, self.plan.blocks, strict=True):
            attended, importance, metric = _attention(block.attn, block.norm1(x), size, protected)
            x = x + block.ls1(attended)
            state = (x, size, importance, metric)
            for step in steps:
                if isinstance(step, Merge):
                    state = _merge(state, step.threshold, protected)
                elif isinstance(step, Prune):
                    state = _prune(state, step.threshold, protected)
                else:
                    raise ValueError(f"no literal translation of {step}")
            x, size = state[0], state[1]
            x = x + block.ls2(block.mlp(block.norm2(x)))
        x = model.norm(x)
        if isinstance(model, VisionTransformerDistilled):
            return torch.stack([model.head(x[0]), model.head_dist(x[1])]).mean(0)[None]
        pooled = x[0]  # [C]
        behind = 0 if model.pool_include_prefix else model.num_prefix_tokens
        if model.global_pool == "avg":
            x, size = x[behind:], size[behind:]
            pooled = (x * size[:, None]).sum(0) / size.sum().clamp(min=1)
        elif model.global_pool == "map":
            pooled = _attention_pool(model.attn_pool, x[behind:], size[behind:])
        logits: Tensor = model.head(model.fc_norm(pooled))[None]
        return logits


_State = tuple[Tensor, Tensor, Tensor, Tensor]  # x [N, C], size [N], importance [N], metric [N, D]


def _attention(
    attn: Attention, x: Tensor, size: Tensor, protected: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Output [N, C], importance [N] (of protected rows +inf) and metric [N, D]."""
    n, heads, width = x.shape[0], attn.num_heads, attn.head_dim
    q, k, v = attn.qkv(x).reshape(n, 3, heads, width).permute(1, 2, 0, 3).unbind(0)
    q, k = attn.q_norm(q), attn.k_norm(k)  # [H, N, D]
    weights = (q * attn.scale @ k.transpose(-2, -1) + size.log()).softmax(-1)  # [H, N, N]
    mixed = (weights @ v).transpose(0, 1).reshape(n, heads * width)
    received = weights.mean((0, 1))
    front = torch.full_like(received[:protected], torch.inf)
    importance = torch.cat([front, received[protected:]])
    metric = k.mean(0)
    return attn.proj(attn.norm(mixed)), importance, metric / metric.norm(dim=-1, keepdim=True)


def _attention_pool(pool: AttentionPoolLatent, x: Tensor, size: Tensor) -> Tensor:
    """Tokens [N, C] of these sizes as the learned query sees them, [C]."""
    n, heads, width = x.shape[0], pool.num_heads, pool.head_dim
    k, v = pool.kv(x).reshape(n, 2, heads, width).permute(1, 2, 0, 3).unbind(0)  # [H, N, D]
    q = pool.q_norm(pool.q(pool.latent[0]).reshape(heads, 1, width))
    scores = q * pool.scale @ pool.k_norm(k).transpose(-2, -1) + size.log()  # [H, 1, N]
    y = pool.proj((scores.softmax(-1) @ v).reshape(-1))
    pooled: Tensor = y + pool.mlp(pool.norm(y))
    return pooled


def _merge(state: _State, threshold: float, protected: int) -> _State:
    x, size, importance, metric = state
    front, behind = (protected + 1) // 2, protected // 2  # protected even rows, and odd ones
    similarity = metric[0::2] @ metric[1::2].T  # [Ns, Nd]
    if behind:
        similarity = torch.cat(
            [torch.full_like(similarity[:, :behind], -torch.inf), similarity[:, behind:]], 1
        )
    if front:
        similarity = torch.cat(
            [torch.full_like(similarity[:front], -torch.inf), similarity[front:]]
        )
    score, partner = similarity.max(1)
    merged = score > threshold
    stay, to = ~merged, partner[merged]
    weighted = x * size[:, None]
    rows = weighted[1::2].index_add(0, to, weighted[0::2][merged])
    sizes = size[1::2].index_add(0, to, size[0::2][merged])
    most = importance[1::2].scatter_reduce(0, to, importance[0::2][merged], "amax")
    size = _listed(size[0::2][stay], sizes, protected)
    return (
        _listed(weighted[0::2][stay], rows, protected) / size[:, None],
        size,
        _listed(importance[0::2][stay], most, protected),
        _listed(metric[0::2][stay], metric[1::2], protected),
    )


def _listed(sources: Tensor, destinations: Tensor, protected: int) -> Tensor:
    """Unmerged sources and destinations, those of them that are protected in front."""
    if protected < 2:
        return torch.cat([sources, destinations])
    front, behind = (protected + 1) // 2, protected // 2
    first = [(destinations if row % 2 else sources)[row // 2, None] for row in range(protected)]
    return torch.cat([*first, sources[front:], destinations[behind:]])


def _prune(state: _State, threshold: float, protected: int) -> _State:
    x, size, importance, metric = state
    keep = importance > threshold
    if not protected:  # the first of the most important stays
        keep = keep | (torch.arange(keep.shape[0]) == importance.argmax())
    return x[keep], size[keep], importance[keep], metric[keep]


def load(file: str, choices: Mapping[str, Any], base_checkpoint: str | None) -> LiteralViT:
    """The model of a checkpoint, as a process is told of it (`Contender.start`)."""
    stated = Choices.from_json(choices)
    base = None if base_checkpoint is None else Path(base_checkpoint)
    checkpoint = load_checkpoint(file, Choices(base_checkpoint=base).over(stated))
    return LiteralViT(checkpoint.model, checkpoint.plan).eval()


def export(file: str, choices: Mapping[str, Any], base_checkpoint: str | None, output: str) -> None:
    """Write the model with `torch.onnx.export(dynamo=True)` as one would who tries it first.

    Called in a process of its own: the exporter logs a lot, and keeps memory.
    """
    import onnxscript  # noqa: F401  what the exporter needs, said plainly where it is missing

    model = load(file, choices, base_checkpoint)
    logging.disable()
    warnings.simplefilter("ignore")
    image = torch.zeros(1, model.model.in_chans, *model.model.patch_embed.img_size)
    with torch.no_grad():
        torch.onnx.export(
            model,
            (image,),
            output,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )


def disagreement(
    checkpoint: Checkpoint, pixels: NDArray[np.float32], logits: Sequence[Sequence[float]]
) -> str:
    """Why logits are not the reference's, or "".

    One image may hold a decision within rounding of its threshold: half of them must agree.

    Args:
        checkpoint: The model.
        pixels: [n, channels, H, W] images.
        logits: [n][classes] of the same images.
    """
    reference = Reference(checkpoint.model, checkpoint.plan)
    errors = []
    for image, found in zip(torch.from_numpy(pixels), logits, strict=True):
        wanted = reference.run(image).logits
        scale = max(1.0, float(wanted.abs().max()))
        errors.append(float((wanted - torch.tensor(found)).abs().max()) / scale)
    middle = float(np.median(errors))
    if middle <= TOLERANCE:
        return ""
    return f"its logits are not the reference's: off by {middle:.1g} (allowed {TOLERANCE:.0g})"

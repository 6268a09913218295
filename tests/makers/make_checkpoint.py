"""Makes checkpoints that look fine-tuned, in the form the LTMP authors' script saves (METHOD §2).

The weights are random, yet give scores spread as a trained model's are: with timm's own
initialisation attention is uniform, every decision a matter of rounding. The thresholds are
quantiles of these scores, block by block, so that a given share of the dense work remains.

    python -m tests.makers.make_checkpoint deit_small_patch16_224 --mac-share 0.52 -o ckpt.pth.tar
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export import families
from ltmp_export.backbones.vit import describe
from ltmp_export.errors import InputError
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import dense_macs, macs
from ltmp_export.reference import attention
from ltmp_export.statements import timm_names
from ltmp_export.steps.matching import match
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Tokens, take

TOLERANCE = 0.01  # how far the share of multiply-accumulates may end from what was asked
_CLOSE_ENOUGH, _TRIALS = 0.003, 16  # the search stops at either

# Standard deviation of a layer's output per unit of input, 1 unless listed. Chosen so that keys'
# cosines, importances and the two branches are spread as in the digits checkpoint (fixtures/).
_GAINS = {"attn.proj": 0.6, "mlp.fc2": 0.6, "head": 2.0}


def make_checkpoint(
    path: Path,
    name: str,
    *,
    family: str = "ltmp",
    mac_share: float = 0.52,
    images: Tensor | None = None,
    seed: int = 0,
    model_kwargs: Mapping[str, Any] | None = None,
    split: float = 0.5,
) -> float:
    """Write a checkpoint with random weights and thresholds that leave `mac_share` of the work.

    Args:
        path: The file to write.
        name: timm's name of the dense ViT, or "vit" for one built from `model_kwargs` alone.
        family: A family of `ltmp_export.families`.
        mac_share: Multiply-accumulates to be left, as a share of the dense model's, in (0, 1].
        images: [B, channels, height, width] float32, normalised; eight `images.pictures` if None.
        seed: Of the weights and of the pictures.
        model_kwargs: For timm's model; `init_values`, `global_pool`, `num_classes`, ….
        split: Share of the removed tokens that merging takes where a family also prunes.

    Returns:
        The share of multiply-accumulates left on `images`, within 0.01 of `mac_share`.

    Raises:
        ValueError: The family cannot reach `mac_share` on these images.
    """
    kwargs = dict(model_kwargs or {})
    model = random_vit(name, seed, **kwargs)
    if images is None:
        images = pictures(8, describe.describe(model, name).input_size, seed)
    thresholds, share = quantile_thresholds(model, family, images, mac_share, split)
    state = dict(model.state_dict())
    for kind, values in thresholds.items():
        keys = (f"blocks.{i}.{kind}_masker.threshold" for i in range(len(values)))
        state |= {key: torch.tensor([value]) for key, value in zip(keys, values, strict=True)}
    arch = f"{family}_{name}"
    arguments = _arguments(describe.describe(model, arch), kwargs, mac_share, seed)
    content = {"epoch": 0, "arch": arch, "state_dict": state, "version": 2, "args": arguments}
    torch.save(content | {"metric": 0.1}, path)
    return share


def _arguments(
    shape: Vit, kwargs: Mapping[str, Any], mac_share: float, seed: int
) -> argparse.Namespace:
    """What the authors' script was called with: most of it left to the model's defaults."""
    height, width = shape.image_size
    half = None if shape.in_chans == 3 else [0.5] * shape.in_chans  # no default fits these
    values: dict[str, Any] = dict.fromkeys(("crop_pct", "interpolation", "resume"))
    values |= {"model": shape.name, "num_classes": shape.classes, "gp": kwargs.get("global_pool")}
    values |= {"img_size": height if height == width else None, "in_chans": kwargs.get("in_chans")}
    values |= {"input_size": None if height == width else list(shape.input_size), "seed": seed}
    values |= {"tau": 0.1, "reduction_target": mac_share, "mean": half, "std": half}
    values |= {"lr": 5e-6, "opt": "sgd", "epochs": 1, "batch_size": 128, "model_ema": False}
    return argparse.Namespace(**values)


def random_vit(name: str, seed: int, **model_kwargs: Any) -> VisionTransformer:
    """Build a ViT of random weights that reduces tokens as a trained one does.

    Every parameter is away from 0 and 1 (also LayerScale, norms, biases): one forgotten shows.
    Takes what `make_checkpoint` takes; the global random state stays as it is.
    """
    with timm_names.without_numbers():
        build: Any = VisionTransformer if name == "vit" else partial(timm.create_model, name)
        model: VisionTransformer = build(**model_kwargs)
    model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        parameter.copy_(_random_parameter(key, parameter.shape, generator))
    for block in model.blocks:
        _make_salient(block, generator)
    if model.pos_embed is not None:
        waves = _smooth(model.embed_dim, model.patch_embed.grid_size, 4, generator).flatten(1)
        model.pos_embed[0, -waves.shape[1] :] = 0.5 * waves.T  # [patches, C]
    return model


def _random_parameter(key: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    noise = torch.randn(tuple(shape), generator=generator)
    layer, _, kind = key.rpartition(".")
    if kind == "bias":
        return 0.1 * noise
    if noise.ndim == 1:  # norms and LayerScale
        return 1 + 0.15 * noise
    if kind != "weight":  # class token and the like
        return noise
    gain = _GAINS.get(".".join(layer.split(".")[-2:]), 1.0)
    return noise * (gain / math.sqrt(noise[0].numel()))


def _make_salient(block: Any, generator: torch.Generator) -> None:
    """Give q a bias, k a part along it by the token alone: then heads and queries agree on it."""
    attn = block.attn
    heads, width = attn.num_heads, attn.qkv.in_features
    strength = 0.4 + 0.8 * torch.rand((), generator=generator)  # differs from block to block
    bias = torch.randn(heads, attn.head_dim, generator=generator)  # [H, D]
    saliency = torch.randn(width, generator=generator) / width**0.5  # [C]
    along = bias / bias.norm(dim=1, keepdim=True)  # adds |b|/√D ≈ 1 per unit of k to a logit
    attn.qkv.weight.unflatten(0, (3, heads, -1))[1] += strength * along[:, :, None] * saliency
    if attn.qkv.bias is not None:
        attn.qkv.bias.unflatten(0, (3, heads, -1))[0] += bias


def pictures(count: int, input_size: tuple[int, int, int], seed: int) -> Tensor:
    """Draw images with structure, from a colour field with one shape to many textured shapes.

    Returns:
        [count, *input_size] float32, each image of mean 0 and standard deviation 1.
    """
    channels, height, width = input_size
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    images = []
    for index in range(count):
        image = _smooth(channels, (height, width), 3, generator)
        for _ in range(1 + 20 * index // count):
            cx, cy, angle, rx, ry, pitch = torch.rand(6, generator=generator).tolist()
            colour = torch.randn(2, channels, 1, 1, generator=generator)
            cos, sin = math.cos(math.tau * angle), math.sin(math.tau * angle)
            u = (x - cx) * cos + (y - cy) * sin  # [height, width]
            v = (y - cy) * cos - (x - cx) * sin
            inside = (u / (0.05 + 0.25 * rx)) ** 4 + (v / (0.05 + 0.25 * ry)) ** 2 < 1
            stripes = (u * (10 + 150 * pitch)).sin() > 0.3
            filling = torch.where(stripes & (index % 2 > 0), colour[0], colour[1])
            image = torch.where(inside, filling, image)
        image = image + 0.03 * torch.randn(image.shape, generator=generator)
        images.append((image - image.mean()) / image.std())
    return torch.stack(images)


def _smooth(channels: int, size: tuple[int, int], waves: int, generator: torch.Generator) -> Tensor:
    """[channels, height, width] random field, `waves` periods across, about unit variance."""
    coarse = torch.randn(1, channels, waves + 1, waves + 1, generator=generator)
    field = nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)[0]
    return field / field.std().clamp_min(0.1)


@torch.inference_mode()
def quantile_thresholds(
    model: VisionTransformer, family: str, images: Tensor, mac_share: float, split: float
) -> tuple[dict[str, list[float]], float]:
    """Find thresholds that remove the same fraction of tokens in every block of a plain ViT.

    Returns:
        Thresholds per kind, one per block, float32 values in [0, 1] midway between two scores;
        and the mean share of multiply-accumulates left on these images.

    Raises:
        ValueError: No fraction comes within 0.01 of `mac_share`.
    """
    if not 0.0 < mac_share <= 1.0 or not 0.0 <= split <= 1.0:
        raise ValueError(f"mac_share {mac_share} must lie in (0, 1], split {split} in [0, 1]")
    embedded = model.norm_pre(model._pos_embed(model.patch_embed(images)))  # [B, N, C]
    low, high, fraction = 0.0, 1.0, 1 - mac_share ** (2 / len(model.blocks))
    best: tuple[dict[str, list[float]], float] = ({}, torch.inf)
    for trial in range(_TRIALS):
        found = _remove(model, family, embedded, fraction, split)
        if abs(found[1] - mac_share) < abs(best[1] - mac_share):
            best = found
        if abs(best[1] - mac_share) < _CLOSE_ENOUGH:
            break
        low, high = (fraction, high) if found[1] > mac_share else (low, fraction)
        fraction *= math.log(mac_share) / math.log(min(found[1], 0.999))  # ~ exponential decay
        if trial > 3 or not low < fraction < high:
            fraction = (low + high) / 2
    if abs(best[1] - mac_share) > TOLERANCE:
        raise ValueError(
            f"family {family} cannot leave {mac_share:.3f} of the multiply-accumulates on these "
            f"{len(images)} images: the nearest is {best[1]:.3f}; ask for that, or use more images"
        )
    return best


def _remove(
    model: Any, family: str, embedded: Tensor, fraction: float, split: float
) -> tuple[dict[str, list[float]], float]:
    """Thresholds that remove `fraction` of each block's tokens, and the work that is left."""
    method = families.load(family)
    draft = method.block_steps(**dict.fromkeys(method.scalars, 0.5))  # the kinds, in order
    thresholds: dict[str, list[float]] = {kind: [] for kind in method.scalars}
    xs, sizes = list(embedded), [x.new_ones(len(x)) for x in embedded]
    counts: list[list[int]] = []  # [depth][B]
    owed = dict.fromkeys(method.scalars, 0.0)  # tokens to remove, with what was left over before
    for block in model.blocks:
        states = [_attend(block, x, size) for x, size in zip(xs, sizes, strict=True)]
        incoming = sum(map(len, xs))
        for step in draft:
            kind = step.action
            part = 1.0 if len(draft) == 1 else split if kind == "merge" else 1 - split
            owed[kind] += part * fraction * incoming
            threshold = _threshold(step, states, round(owed[kind]))
            chosen = Merge(threshold) if kind == "merge" else Prune(threshold)
            thresholds[kind].append(threshold)
            reduced = [take(chosen, state, None, {})[0] for state in states]
            owed[kind] -= sum(len(a.x) - len(b.x) for a, b in zip(states, reduced, strict=True))
            states = reduced
        xs = [state.x + block.ls2(block.mlp(block.norm2(state.x))) for state in states]
        sizes = [state.size for state in states]
        counts.append([len(x) for x in xs])
    geometry = describe.describe(model, "vit")
    left = [macs(geometry, image) for image in zip(*counts, strict=True)]
    return thresholds, sum(left) / len(left) / dense_macs(geometry)


def _attend(block: Any, x: Tensor, size: Tensor) -> Tokens:
    attended, scores = attention(block.attn, block.norm1(x), size)
    return Tokens(x + block.ls1(attended), size, scores)


def _threshold(step: Step, states: Sequence[Tokens], wanted: int) -> float:
    """The threshold at which this step removes about `wanted` tokens of all images together.

    Of the gaps between scores near that place it takes the middle of the widest.
    """
    merging = isinstance(step, Merge)
    scores = [match(step, s).score if merging else s.scores[IMPORTANCE] for s in states]
    pooled = torch.cat([score[1:] for score in scores]).double().clamp(0, 1).sort().values
    total = len(pooled)
    below = min(max(total - wanted if merging else wanted, 0), total)  # scores under the threshold
    ends = torch.cat([pooled.new_zeros(1), pooled, pooled.new_ones(1)])
    if 0 < below < total:
        near = 2 + total // 200
        first, last = max(1, below - near), min(total - 1, below + near)
        below = first + int(ends[first : last + 2].diff().argmax())
    return float(((ends[below] + ends[below + 1]) / 2).float())


def _read_images(path: Path) -> Tensor:
    with np.load(path) as arrays:
        array = arrays["images"]
    if array.ndim != 4 or array.dtype.kind != "f":
        raise ValueError(f"{path} holds {array.dtype} {array.shape}; expected float [B, C, H, W]")
    return torch.from_numpy(array.astype(np.float32))


def small_vit(path: Path, **kwargs: int) -> None:
    """Write an ltp of 32 by 32 pixels that prunes in every block; `kwargs` are timm's."""
    model = random_vit("vit", 0, img_size=32, patch_size=8, embed_dim=64, num_heads=1, **kwargs)
    thresholds = {
        f"blocks.{i}.prune_masker.threshold": torch.tensor([0.02]) for i in range(kwargs["depth"])
    }
    torch.save({"state_dict": model.state_dict() | thresholds, "arch": "ltp_small"}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a checkpoint that looks fine-tuned.")
    parser.add_argument("name", help="timm name of a plain ViT")
    parser.add_argument("--family", default="ltmp", choices=families.learned())
    parser.add_argument("--mac-share", type=float, default=0.52)
    parser.add_argument("--images", type=Path, help=".npz with normalised floats (default: drawn)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-classes", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    options = {"family": given.family, "mac_share": given.mac_share, "seed": given.seed}
    options["model_kwargs"] = {"num_classes": given.num_classes} if given.num_classes else {}
    try:
        images = given.images and _read_images(given.images)
        share = make_checkpoint(given.output, given.name, images=images, **options)
    except (ValueError, InputError) as err:
        parser.error(str(err))
    print(f"{given.output}: {share:.4f} of the dense multiply-accumulates are left")


if __name__ == "__main__":
    main()

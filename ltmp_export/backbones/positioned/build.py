"""From weights to their timm model by its name: sizes from shapes, the rest from the name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ltmp_export.backbones import by_name
from ltmp_export.backbones.built import Built, load
from ltmp_export.backbones.positioned import resize
from ltmp_export.backbones.positioned.describe import describe
from ltmp_export.backbones.vit import features
from ltmp_export.backbones.vit.describe import norm_eps
from ltmp_export.errors import InputError
from ltmp_export.plan.vit import Vit
from ltmp_export.statements import timm_names
from ltmp_export.statements.gather import Answer, Said, Statements
from ltmp_export.statements.timm_names import TimmName

Weights = Mapping[str, Tensor]
More = Callable[[Weights, Any, int, int], Mapping[str, Any]]


def build(
    weights: Weights,
    name: str | None,
    says: Statements | None = None,
    *,
    source: str = "the checkpoint",
    timm_name: TimmName | None = None,
    where: str = "its name",
    called: str,
    expected: type[nn.Module],
    more: More,
) -> Built:
    """Build the timm model these weights belong to and load them, every key matched.

    Args:
        weights: timm names, no prefix, no weights of a token-reduction method.
        name: What to call the model.
        says: What the file and the user say of it.
        source: Where the weights come from, for messages.
        timm_name: The model of timm's that it is.
        where: Who calls it so.
        called: What a person calls such networks, with an article.
        expected: timm's class of them.
        more: From the weights, the model by name, depth and heads to arguments of timm's that only
            this class has.

    Raises:
        InputError: Nothing tells which model it is, shapes contradict its name, or the model has a
            feature that is not supported.
    """
    says = says or Statements()
    if timm_name is None:
        raise InputError(f"{source} is {called}, and nothing tells which; state it with --model")
    named: Any = timm_names.create(timm_name.name)  # timm's attributes are untyped
    by_name.require_class(
        named, [expected.__name__], timm_name, called=called, source=source, where=where
    )
    by_name.require_unsaid((says.act, says.norm_eps), called, source)
    told = f"{timm_name.name} ({where})"
    shape = _arguments(weights, source)
    size, size_from = by_name.image_size(named, says, told)
    grid = resize.grid(size, shape["patch_size"], source)
    weights, warnings = resize.resized(weights, named, says.stored_size, grid, source)
    if says.heads is None and shape["embed_dim"] != named.embed_dim:
        raise InputError(
            f"{source}: nothing tells the number of heads: its width is {shape['embed_dim']}, that "
            f"of {told} is {named.embed_dim}; state --num-heads"
        )
    heads = says.heads or Said(named.blocks[0].attn.num_heads, told)
    pool = says.pool or Said(named.global_pool, told)
    shape |= {"img_size": size, "num_heads": heads.value, "global_pool": pool.value}
    shape |= more(weights, named, shape["depth"], heads.value)
    model: Any = timm_names.create(timm_name.name, **shape)
    load(model, weights, name or called, source)
    _fill(model)
    model.eval().requires_grad_(False)
    geometry = describe(model, name or timm_name.name)
    answers = {
        "num_heads": Answer(*heads),
        "act": Answer(geometry.activation, told),
        "norm_eps": Answer(norm_eps(named), told),
        "pool": Answer(*pool),
        "img_size": Answer(list(size), size_from),
    }
    return Built(model, geometry, answers, (*warnings, *_departures(geometry, named, told)))


def _arguments(weights: Weights, source: str) -> dict[str, Any]:
    """What shapes tell, as arguments of timm's model.

    Raises:
        InputError: A shape can be none of such a model's.
    """
    told = partial(by_name.shape, weights, called="a ViT", source=source)
    embedding = told("patch_embed.proj.weight", 4)
    last = told("blocks.0.mlp.fc2.weight", 2)
    classes = told("head.weight", 2)[0] if "head.weight" in weights else 0
    return {
        "num_classes": classes,
        "in_chans": embedding[1],
        "patch_size": embedding[2:],
        "embed_dim": embedding[0],
        "depth": features.block_count(weights),
        "mlp_ratio": (last[1] + 0.5) / embedding[0],  # timm truncates the product
        "use_fc_norm": "fc_norm.weight" in weights,
    }


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    """Compute what files do not hold: timm's model was built without numbers."""
    for module in model.modules():
        empty = [key for key, value in module.named_buffers(recurse=False) if value.is_meta]
        for key in empty:
            setattr(module, key, torch.empty_like(module.get_buffer(key), device="cpu"))
        if empty:
            made: Any = module
            made.init_non_persistent_buffers()


def _departures(found: Vit, named: Any, told: str) -> tuple[str, ...]:
    """How the weights rightly differ from the model of their name, said in one line."""
    pairs: list[tuple[str, Any, Any]] = [
        ("width", found.width, named.embed_dim),
        ("depth", found.depth, len(named.blocks)),
        ("heads", found.heads, named.blocks[0].attn.num_heads),
        ("images", found.image_size, tuple(named.patch_embed.img_size)),
        ("patches", found.patch_size, tuple(named.patch_embed.patch_size)),
        ("channels", found.in_chans, named.patch_embed.proj.in_channels),
        ("MLP width", found.mlp_width, named.blocks[0].mlp.fc2.in_features),
    ]
    if isinstance(named.head, nn.Linear):
        pairs.append(("classes", found.classes, named.num_classes))
    return by_name.departures(pairs, told)


def made_of(called: str, expected: type[nn.Module], more: More) -> Callable[..., Built]:
    """`build` of one class of timm's."""
    return partial(build, called=called, expected=expected, more=more)

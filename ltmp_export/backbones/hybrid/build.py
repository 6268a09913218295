"""From weights and timm's name to a network of convolutions and attention that holds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ltmp_export.backbones import by_name
from ltmp_export.backbones.built import Built, load
from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.plan.geometry import MOST_PIXELS, Size
from ltmp_export.statements import timm_names
from ltmp_export.statements.gather import Answer, Statements
from ltmp_export.statements.timm_names import TimmName

Weights = Mapping[str, torch.Tensor]

COUNTER = r".*\.num_batches_tracked"  # of training alone: files may leave it out


@dataclass(frozen=True)
class Network:
    """Which network it is, for `build`.

    Attributes:
        called: What a person calls it, with an article.
        classes: Names of timm's classes that it may be.
        example: A name of timm's for one.
        first: Name of the first convolution's weight.
        last: Name of the classifier's weight.
        describe: Its `describe.describe`.
    """

    called: str
    classes: tuple[str, ...]
    example: str
    first: str
    last: str
    describe: Callable[[nn.Module, str, Size | None], Hybrid]


def build(
    network: Network,
    weights: Weights,
    name: str | None,
    says: Statements | None = None,
    *,
    source: str = "the checkpoint",
    timm_name: TimmName | None = None,
    where: str = "its name",
) -> Built:
    """The model of a name with these weights, see `vit.build.build`.

    Raises:
        InputError: Nothing tells timm's name, the weights are not those of that model, or it has a
            feature that is not supported.
    """
    says = says or Statements()
    if timm_name is None:
        raise InputError(
            f"{source} is {network.called}, and nothing tells which; state its name of timm's, "
            f"like --model {network.example}"
        )
    _require_unsaid(network, says, source)
    labels = _sized(weights, network.last, 2, source)[0]
    channels = _sized(weights, network.first, 4, source)[1]
    arguments = {**says.arguments, "num_classes": labels, "in_chans": channels}
    model = timm_names.create(timm_name.name, **arguments)
    by_name.require_class(
        model, network.classes, timm_name, called=network.called, source=source, where=where
    )
    size, told = _image_size(says, timm_name, where, source)
    if not 0 < min(size) <= max(size) <= MOST_PIXELS:
        raise InputError(f"{source}: images of {size[0]} × {size[1]} pixels ({told})")
    geometry = network.describe(model, timm_name.name, size)
    _require_memory(geometry)
    load(model, _whole(model, weights), timm_name.name, source)
    model.eval().requires_grad_(False)
    return Built(model, geometry, {"img_size": Answer(size, told)}, ())


def _require_unsaid(network: Network, says: Statements, source: str) -> None:
    """Check that nothing is stated that timm's name tells of such a model.

    Raises:
        InputError: Something is.
    """
    average = says.pool is not None and says.pool.value == "avg"
    said = (says.heads, says.act, says.norm_eps, None if average else says.pool)
    by_name.require_unsaid(said, network.called, source)


def _sized(weights: Weights, name: str, rank: int, source: str) -> tuple[int, ...]:
    """The shape of a weight.

    Raises:
        InputError: It is missing, empty, or of another rank.
    """
    shape = tuple(weights[name].shape) if name in weights else ()
    if len(shape) != rank or 0 in shape:
        found = list(shape) if name in weights else "missing"
        raise InputError(f"{source}: {name} is {found}; expected {rank} non-empty dimensions")
    return shape


def _image_size(says: Statements, name: TimmName, where: str, source: str) -> tuple[Size, str]:
    """Height and width of the images, and who says so: no weight depends on them."""
    stated = (
        (says.image_size, "--img-size"),
        (says.stored_size, "the file"),
        (name.image_size, f"{where} ({name.name})"),
    )
    for size, told in stated:
        if size is not None:
            return size, told
    raise InputError(f"{source}: nothing tells the size of its images; state --img-size")


def _whole(model: nn.Module, weights: Weights) -> dict[str, torch.Tensor]:
    """The weights, with training's counters as the model has them, for files may leave them out."""
    counter = re.compile(COUNTER)
    state = {k: v for k, v in weights.items() if not counter.fullmatch(k)}
    zero = torch.zeros((), dtype=torch.int64)
    return state | {k: zero for k in model.state_dict() if counter.fullmatch(k)}


def _require_memory(geometry: Hybrid) -> None:
    """Check that one image fits: the reference holds maps and attention in float64.

    Raises:
        InputError: It takes more than the memory limit.
    """
    height, width = geometry.image_size
    numbers = geometry.most_numbers()
    memory.require_memory(8 * numbers, f"an image of {height} × {width} pixels")

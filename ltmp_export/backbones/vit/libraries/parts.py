"""What one of timm's tensors is made of: tensors of a file under another library's names.

Made when the file is read; its shape is known before, so that all checks of timm's names hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import Said

if TYPE_CHECKING:
    from torch import Tensor

Weights = Mapping[str, Shaped]  # by the names in the file


@dataclass(frozen=True)
class Part:
    """One of timm's tensors.

    Attributes:
        keys: The tensors of the file that it is made of; none of what the library leaves out.
        shape: Of what is made.
        make: Makes it of them, in the order of `keys`.
    """

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[..., Tensor] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Taken:
    """A model of another library.

    Attributes:
        parts: By timm's names.
        words: What the library's code or its configuration says, by timm's words.
        found: What was taken and what was left out, for a person.
        unknown: Names in the file that are none of the library's.
    """

    parts: Mapping[str, Part]
    words: Mapping[str, Said]
    found: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def _shape(weights: Weights, key: str, *ranks: int) -> tuple[int, ...]:
    """The shape of a tensor in the file.

    Raises:
        InputError: It has not so many dimensions.
    """
    shape = tuple(weights[key].shape)
    if len(shape) not in ranks:
        expected = " or ".join(map(str, ranks))
        raise InputError(f"{key} has shape {shape}; expected {expected} dimensions")
    return shape


def same(weights: Weights, key: str) -> Part:
    """A tensor as it is."""
    return Part((key,), tuple(weights[key].shape), lambda one: one)


def batched(weights: Weights, key: str) -> Part:
    """A token, or rows of them, as of one image: three dimensions, ones in front."""
    shape = _shape(weights, key, 1, 2, 3)
    whole = (*(1,) * (3 - len(shape)), *shape)
    return Part((key,), whole, lambda one: one.reshape(whole))


def transposed(weights: Weights, key: str) -> Part:
    """A matrix with rows and columns exchanged."""
    rows, columns = _shape(weights, key, 2)
    return Part((key,), (columns, rows), lambda one: one.t().contiguous())


def rows(weights: Weights, key: str, start: float, stop: float) -> Part:
    """Rows of a tensor, from one share of them to another, as a tensor of its own."""
    first, *others = _shape(weights, key, 1, 2)
    low, high = round(start * first), round(stop * first)
    return Part((key,), (high - low, *others), lambda one: one[low:high].clone())


def stacked(weights: Weights, *keys: str) -> Part:
    """Tensors one under the other, in this order."""
    shapes = [_shape(weights, key, 1, 2) for key in keys]
    whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def make(*several: Tensor) -> Tensor:
        import torch

        return torch.cat(several)

    return Part(keys, whole, make)


def zeros(*shape: int) -> Part:
    """What the library's layer has not and timm's has: nothing is added."""

    def make() -> Tensor:
        import torch

        return torch.zeros(shape)

    return Part((), shape, make)


def projection(
    parts: Mapping[str, Part], notes: tuple[str, ...]
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """A CLIP's projection without a bias as the head, as timm has it, and what is to be said of it.

    Args:
        parts: timm's tensors; of the projection `head.weight`, if there is one.
        notes: What else is to be said.
    """
    if "head.weight" not in parts:
        return dict(parts), notes
    bias = {} if "head.bias" in parts else {"head.bias": zeros(*parts["head.weight"].shape[:1])}
    told = f"{parts['head.weight'].keys[0]}: its head projects to CLIP's embeddings, not to classes"
    return {**parts, **bias}, (*notes, told)


def gated(where: str) -> dict[str, Said]:
    """What SwiGLU in one layer is: the gate in the first half, through SiLU."""
    return {"act": Said("silu", where), "gate": Said("first", where)}


def without_class_position(weights: Weights, token: str, positions: str) -> tuple[Part, Part]:
    """The class token with the position added that stands for it, and the positions of patches.

    timm's models with registers have a position for neither: METHOD §2.

    Args:
        weights: By the names in the file.
        token: The class token, [1, 1, C].
        positions: [1, 1 + patches, C].
    """
    batch, count, width = _shape(weights, positions, 3)
    placed = Part((token, positions), (1, 1, width), lambda one, all_: one + all_[:, :1])
    return placed, Part((positions,), (batch, count - 1, width), lambda one: one[:, 1:].clone())


def made(parts: Mapping[str, Part], read: Callable[[str], Any]) -> dict[str, Tensor]:
    """All of timm's tensors.

    Args:
        parts: By timm's names.
        read: Gives a tensor of the file.

    Raises:
        InputError: Tensors do not fit together.
    """
    found: dict[str, Tensor] = {}
    for name, part in parts.items():
        try:
            found[name] = part.make(*map(read, part.keys))
        except (RuntimeError, IndexError) as err:
            raise InputError(f"{' and '.join(part.keys)} do not fit together: {err}") from err
    return found

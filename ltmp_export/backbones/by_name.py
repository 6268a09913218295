"""What networks share whose sizes are told by shapes and all else by timm's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import MOST_PIXELS, Size

if TYPE_CHECKING:
    from torch import Tensor

    from ltmp_export.statements.gather import Said, Statements
    from ltmp_export.statements.timm_names import TimmName


def require_class(
    model: object, classes: Iterable[str], name: TimmName, *, called: str, source: str, where: str
) -> None:
    """Check that timm's model of a name is of the network that the weights are of.

    Args:
        model: Of that name.
        classes: Names of timm's classes that it may be.
        name: Of it.
        called: What a person calls such networks, with an article.
        source: Where the weights come from.
        where: Who calls it so.

    Raises:
        InputError: It is another network.
    """
    if type(model).__name__ not in classes:
        raise InputError(
            f"{source} is {called}, but {name.name} ({where}) is a {type(model).__name__} of "
            "timm's; state what it is with --model"
        )


def require_unsaid(said: Iterable[Said | None], called: str, source: str) -> None:
    """Check that no option states what the name of such networks tells.

    Raises:
        InputError: One does.
    """
    for one in said:
        if one is not None and one.where.startswith("--"):
            raise InputError(
                f"{source}: {one.where} is not for {called}, whose name tells; drop it"
            )


def image_size(named: Any, says: Statements, told: str) -> tuple[Size, str]:
    """(height, width), and who says so: what is stated, or else `told`, whose model `named` is."""
    stated = (says.image_size, "--img-size"), (says.stored_size, "the file")
    own = tuple(named.patch_embed.img_size)
    size, where = next(((s, w) for s, w in stated if s is not None), (own, told))
    require_sides(size)
    return (size[0], size[1]), where


def require_sides(size: Size) -> None:
    """Check that images can have this height and width, in pixels.

    Raises:
        InputError: They cannot.
    """
    if not 0 < min(size) <= max(size) <= MOST_PIXELS:
        raise InputError(f"--img-size: expected sides of 1 to {MOST_PIXELS} pixels")


def shape(
    weights: Mapping[str, Tensor], key: str, rank: int, *, called: str, source: str
) -> tuple[int, ...]:
    """The shape of a weight.

    Raises:
        InputError: It is missing, empty, or of another rank.
    """
    found = tuple(weights[key].shape) if key in weights else None
    if found is None or len(found) != rank or 0 in found:
        raise InputError(
            f"{source}: {key} has shape {found}; {called} of timm's has {rank} non-empty dimensions"
        )
    return found


def across(value: Any) -> str:
    """A value for a person, sizes as height by width."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def departures(
    pairs: Iterable[tuple[str, Any, Any]], told: str, shown: Callable[[Any], str] = across
) -> tuple[str, ...]:
    """How weights rightly differ from the model of their name, said in one line.

    Args:
        pairs: What is compared, as the weights and as the model of the name have it.
        told: The name, and who says so.
        shown: A value for a person.
    """
    others = [f"{what} {shown(ours)} ({shown(its)})" for what, ours, its in pairs if ours != its]
    if not others:
        return ()
    return (f"not in all as {told} has it: {', '.join(others)}; the weights decide",)

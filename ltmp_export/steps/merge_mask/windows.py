"""Masks in a network whose tokens attend among those of windows: one in each block.

Each block merges the tokens of every window alike, and gives them back behind its MLP, before the
windows are put together. Windows of one size share a first mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.plan.cells import cells, membership
from ltmp_export.plan.geometry import Geometry, Place, Size
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.work import dense_macs, largest
from ltmp_export.steps.merge_mask import weights
from ltmp_export.steps.merge_mask.step import MergeMask

KINDS = ("swin",)  # such networks
RATIO = 0.75
WEIGHTS = (
    r"layers\.(0|[1-9][0-9]{0,5})\.(ltm\.mask0|blocks\.(0|[1-9][0-9]{0,5})\.ltm\.(center|step))"
)

_MASK = "ltm.mask0"


def from_stated(
    source: str,
    net: Geometry,
    *,
    compression_ratio: float | None,
    merge_at: tuple[int, ...] | None,
    hard: bool | None,
    restore: bool | None,
    reduction_target: float | None,
) -> Placed:
    """The merges of a model that is not trained with any, see `families.ltm_transformer`.

    Raises:
        InputError: What is stated cannot be, or does not fit the network.
    """
    _require_no_choice(net, merge_at, restore)
    assumed: dict[str, Any] = {} if hard is not None else {"masks": "soft"}
    if compression_ratio is None and reduction_target is None:
        compression_ratio = assumed["compression_ratio"] = RATIO
    if compression_ratio is None:
        compression_ratio = _reaching(net, float(reduction_target or 0), bool(hard))
    divided = _divided(net, compression_ratio)
    placed = _placed(net, _targets(divided), bool(hard))
    doubt = f"the masks of {source} are as training starts: means of the tokens of each cell"
    return replace(
        placed,
        assumed=assumed,
        warnings=(doubt,),
        parameters=dict(_start(net, divided)),
    )


def from_weights(
    source: str,
    net: Geometry,
    shapes: Mapping[str, Sequence[int]],
    *,
    compression_ratio: float | None,
    merge_at: tuple[int, ...] | None,
    hard: bool,
    restore: bool | None,
) -> Placed:
    """The merges that trained masks tell of, see `families.ltm_transformer`.

    Raises:
        InputError: A tensor is missing or does not fit, or what is stated is another model's.
    """
    _require_no_choice(net, merge_at, restore)
    expected: dict[str, tuple[int, ...]] = {}
    targets = {}
    for mask, place in zip(_masks(net), net.places(), strict=True):
        tokens = place.grid[0] * place.grid[1]
        shape = tuple(shapes.get(mask, ()))
        if len(shape) != 2 or shape[0] != tokens or not 0 < shape[1] <= tokens:
            found = list(shape) if mask in shapes else "missing"
            raise InputError(
                f"{source}: {mask} is {found}; expected [{tokens}, targets], at most {tokens} of "
                "them"
            )
        targets[mask] = shape[1]
        expected |= {
            mask: shape, f"{place.path}.ltm.center": (place.width,), f"{place.path}.ltm.step": (1,)
        }  # fmt: skip
    weights.require(source, shapes, expected)
    if compression_ratio is not None:
        asked = _targets(_divided(net, compression_ratio))
        if asked != targets:
            raise InputError(
                f"--compression-ratio {compression_ratio:g} leaves {_listed(asked)} tokens of a "
                f"window; the masks of {source} leave {_listed(targets)}"
            )
    return _placed(net, targets, hard)


def _require_no_choice(net: Geometry, merge_at: object, restore: bool | None) -> None:
    """Check that nothing is stated that these networks leave no choice of.

    Raises:
        InputError: Something is.
    """
    if restore is False:
        raise InputError(
            f"--no-restore: the windows of {net.name} are put together again behind each block, "
            "which takes all tokens; drop it"
        )
    if merge_at is not None:
        raise InputError(f"--merge-at: of {net.name} all blocks merge; drop it")


def _masks(net: Geometry) -> list[str]:
    """The name of the first mask of each block: one for all where all windows are of one size."""
    places = net.places()
    if len({place.grid for place in places}) == 1:
        return [_MASK] * len(places)
    return [".".join((*place.path.split(".")[:2], _MASK)) for place in places]


def _divided(net: Geometry, ratio: float) -> dict[str, tuple[Place, Size]]:
    """By mask a block that begins with it, and the grid of its targets.

    Raises:
        InputError: There would be none.
    """
    found = {m: (p, cells(ratio, p.grid)) for m, p in zip(_masks(net), net.places(), strict=True)}
    for place, left in found.values():
        if not left[0] * left[1]:
            sides = "x".join(map(str, place.grid))
            raise InputError(f"--compression-ratio {ratio:g} leaves no token of windows of {sides}")
    return found


def _targets(divided: Mapping[str, tuple[Place, Size]]) -> dict[str, int]:
    """How many targets each mask has."""
    return {mask: left[0] * left[1] for mask, (_, left) in divided.items()}


def _placed(net: Geometry, targets: Mapping[str, int], hard: bool) -> Placed:
    """The steps, and what they come to."""
    steps = _steps(net, targets, hard)
    of = {mask: step.of for mask, (step,) in zip(_masks(net), steps, strict=True)}
    found = (
        f"each block merges and restores: {_listed(targets)} of {_listed(of)} tokens of a window, "
        f"masks {'hard' if hard else 'soft'}"
    )
    return Placed(blocks=dict(enumerate(steps)), found=(found,))


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(map(str, numbers.values()))


def _steps(net: Geometry, targets: Mapping[str, int], hard: bool) -> list[tuple[MergeMask]]:
    return [
        (
            MergeMask(
                f"{place.path}.ltm", mask, place.grid[0] * place.grid[1], targets[mask],
                place.sets, first=place.starts, hard=hard, restore=True,
            ),
        )
        for mask, place in zip(_masks(net), net.places(), strict=True)
    ]  # fmt: skip


def _share(net: Geometry, targets: Mapping[str, int], hard: bool) -> float:
    """Share of the dense multiply-accumulates."""
    plan = Plan("ltm_transformer", tuple(_steps(net, targets, hard)))
    return net.macs(plan) / dense_macs(net)


def _reaching(net: Geometry, target: float, hard: bool) -> float:
    """The largest ratio, in thousandths, that leaves no more than this share of the work.

    Raises:
        InputError: None does.
    """
    costs = [1.0]

    def cost(ratio: float) -> float | None:
        try:
            targets = _targets(_divided(net, ratio))
        except InputError:
            return None
        costs.append(_share(net, targets, hard))
        return costs[-1]

    if (ratio := largest(target, cost)) is not None:
        return ratio
    raise InputError(
        f"--reduction-target {target:g}: masks in windows leave {min(costs):.3f} of the "
        "multiply-accumulates at the least, since they shrink the MLPs alone; ask for more"
    )


def _start(net: Geometry, divided: Mapping[str, tuple[Place, Size]]) -> Iterator[tuple[str, Any]]:
    """Weights as training starts: each token in the cell of the grid that it lies in, no step."""
    for mask, (place, left) in divided.items():
        yield mask, membership(place.grid, left)
    for place in net.places():
        yield from weights.unmoved(f"{place.path}.ltm", place.width)

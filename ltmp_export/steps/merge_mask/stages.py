"""Masks in a network of stages whose maps stay as small as a merge leaves them: one in each stage.

A stage's first block merges, by a mask of its own, and what is behind it runs on the smaller map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ltmp_export.errors import InputError
from ltmp_export.plan.cells import membership
from ltmp_export.plan.geometry import Place, Size
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.work import largest
from ltmp_export.steps.merge_mask import weights
from ltmp_export.steps.merge_mask.step import MergeMask

WEIGHTS = r"stages\.(0|[1-9][0-9]{0,5})\.ltm\.(mask0|center|step)"

KINDS = ("efficientvit", "mobilevit")  # such networks
RATIO = 0.75
Steps = dict[int, tuple[MergeMask, ...]]


class Staged(Protocol):
    """A geometry of stages."""

    @property
    def name(self) -> str:
        """The name of timm's."""

    @property
    def depth(self) -> int:
        """Blocks."""

    def places(self) -> tuple[Place, ...]:
        """The blocks."""

    def reduced(self, ratio: float) -> dict[int, tuple[Size, Size]]:
        """By block, the grids before and behind a merge of a share in each stage; or ValueError."""

    def require_possible(self, plan: Plan) -> None:
        """Check that a plan's steps can be taken, or ValueError."""

    def macs(self, plan: Plan) -> int:
        """Multiply-accumulates of one image."""


def from_stated(
    source: str,
    net: Staged,
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
    steps, start = of_ratio(net, compression_ratio, bool(hard))
    placed = _placed(net, steps)
    doubt = f"the masks of {source} are as training starts: means of the tokens of each cell"
    return replace(placed, parameters=start, assumed=assumed, warnings=(doubt,))


def from_weights(
    source: str,
    net: Staged,
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
    steps = of_shapes(source, net, shapes, hard)
    if compression_ratio is not None:
        asked, _ = of_ratio(net, compression_ratio, hard)
        if asked != steps:
            raise InputError(
                f"--compression-ratio {compression_ratio:g} leaves {_kept(asked)} tokens; the "
                f"masks of {source} leave {_kept(steps)}"
            )
    return _placed(net, steps)


def _require_no_choice(net: Staged, merge_at: object, restore: bool | None) -> None:
    """Check that nothing is stated that these networks leave no choice of.

    Raises:
        InputError: Something is.
    """
    if restore:
        raise InputError(
            f"--restore: {net.name} keeps the smaller map behind a merge, and restoring it is not "
            "supported; drop it"
        )
    if merge_at is not None:
        raise InputError(f"--merge-at: of {net.name} the first block of each stage merges; drop it")


def _placed(net: Staged, steps: Steps) -> Placed:
    """The steps, and what they come to."""
    each = [step for (step,) in steps.values()]
    names = ", ".join(step.name.removesuffix(".ltm") for step in each)
    sets = f" in each of {each[0].sets} sets" if each[0].sets > 1 else ""
    masks = "hard" if each[0].hard else "soft"
    found = f"the first block of {names} merges: {_kept(steps)} tokens{sets}, masks {masks}"
    return Placed(blocks=dict(steps), found=(found,))


def _kept(steps: Steps) -> str:
    """How many tokens each leaves, of how many."""
    return ", ".join(f"{step.tokens} of {step.of}" for (step,) in steps.values())


def _share(net: Staged, steps: Steps) -> float:
    """Share of the dense multiply-accumulates."""
    return net.macs(plan_of(net, steps)) / net.macs(dense_plan(net.depth))


def _reaching(net: Staged, target: float, hard: bool) -> float:
    """The largest ratio, in thousandths, that leaves no more than this share of the work.

    Raises:
        InputError: None does.
    """

    def cost(ratio: float) -> float | None:
        return _share(net, of_ratio(net, ratio, hard)[0]) if _fits(net, ratio) else None

    if (ratio := largest(target, cost)) is not None:
        return ratio
    raise InputError(
        f"--reduction-target {target:g}: masks in the stages of {net.name} cannot leave so little"
    )


def of_ratio(net: Staged, ratio: float, hard: bool) -> tuple[Steps, dict[str, Any]]:
    """The merges that leave a share of the tokens of each stage, and masks as training starts.

    Raises:
        InputError: Maps do not fit that share; the message says which, and what shares fit.
    """
    try:
        grids = net.reduced(ratio)
    except ValueError as err:
        others = ", ".join(f"{other:g}" for other in _fitting(net, ratio))
        raise InputError(
            f"--compression-ratio {ratio:g} of {net.name}: {err}; near it "
            f"{others or 'no ratio'} would do"
        ) from err
    steps: Steps = {}
    start: dict[str, Any] = {}
    for block, (grid, left) in grids.items():
        place = net.places()[block]
        name, targets = stage_of(place), left[0] * left[1]
        steps[block] = (_step(name, grid[0] * grid[1], targets, place.sets, hard),)
        start |= dict(_start(name, grid, left, place.width))
    return steps, start


def of_shapes(source: str, net: Staged, shapes: Mapping[str, Sequence[int]], hard: bool) -> Steps:
    """The merges that trained masks tell of.

    Raises:
        InputError: A tensor is missing or does not fit the network.
    """
    steps: Steps = {}
    expected: dict[str, tuple[int, ...]] = {}
    for block, place in enumerate(net.places()):
        if not place.starts:
            continue
        name = stage_of(place)
        mask = tuple(shapes.get(f"{name}.mask0", ()))
        if len(mask) != 2 or not all(mask):
            found = list(mask) if mask else "missing"
            raise InputError(f"{source}: {name}.mask0 is {found}; expected [tokens, targets]")
        expected |= {f"{name}.mask0": mask, f"{name}.center": (place.width,), f"{name}.step": (1,)}
        steps[block] = (_step(name, *mask, place.sets, hard),)
    weights.require(source, shapes, expected)
    try:
        net.require_possible(plan_of(net, steps))
    except ValueError as err:
        raise InputError(f"{source}: its masks do not fit {net.name}: {err}") from err
    return steps


def plan_of(net: Staged, steps: Mapping[int, tuple[MergeMask, ...]]) -> Plan:
    """The plan of these steps by block."""
    return Plan("ltm_transformer", tuple(steps.get(block, ()) for block in range(net.depth)))


def stage_of(place: Place) -> str:
    """Prefix of the weights of the mask in the stage of a block, like `stages.2.ltm`."""
    return ".".join((*place.path.split(".")[:2], "ltm"))


def _step(name: str, tokens: int, targets: int, sets: int, hard: bool) -> MergeMask:
    return MergeMask(name, f"{name}.mask0", tokens, targets, sets, hard=hard)


def _start(name: str, grid: Size, divided: Size, width: int) -> Iterator[tuple[str, Any]]:
    """Weights as training starts: each token in the cell of the grid that it lies in, no step."""
    yield f"{name}.mask0", membership(grid, divided)
    yield from weights.unmoved(name, width)


def _fitting(net: Staged, ratio: float) -> list[float]:
    """The nearest ratio below and above that a network's maps allow, in hundredths."""
    found = []
    for hundredths in (range(int(ratio * 100), 0, -1), range(int(ratio * 100) + 1, 101)):
        fits = (share / 100 for share in hundredths if _fits(net, share / 100))
        found += [share for share in (next(fits, None),) if share is not None]
    return found


def _fits(net: Staged, ratio: float) -> bool:
    try:
        net.reduced(ratio)
    except ValueError:
        return False
    return True

"""An exported file at other token counts: the same weights under other thresholds, or another r."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import onnx

from ltmp_export import families
from ltmp_export.calibration.shift import shifted
from ltmp_export.checkpoint import rates
from ltmp_export.errors import InputError
from ltmp_export.model_file.dense import rebuilt
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.plan import work
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import INT8, Precision
from ltmp_export.progress import Progress
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.tabulate import Subject, Variant, counted

POINTS = 6
SHIFTS = (-6.0, -3.0, -1.5, 0.0, 1.5, 3.0)  # on the scale of log-odds
_GAP = 0.15  # of the multiply-accumulates, beyond which another point is tried between two
TRIALS = 5


def unprotected(precision: Precision) -> Precision:
    """For a dense model, in which nothing is decided."""
    if precision.kind != INT8:
        return precision
    layers = {path: given._replace(terms=1) for path, given in precision.layers.items()}
    return replace(precision, protected=False, auto=False, layers=layers)


def dense(exported: ExportedModel) -> onnx.ModelProto:
    """The dense model in the numbers and the form of a file.

    Raises:
        InputError: The file lacks a weight.
    """
    plan = dense_plan(exported.geometry.depth)
    return rebuilt(exported, plan, unprotected(exported.precision))


def require_variable(exported: ExportedModel) -> Vit:
    """Check that a file's token counts can be changed without its checkpoint.

    Raises:
        InputError: They cannot.
    """
    plan, vit = exported.plan, exported.geometry
    able = (*families.learned(), *families.counted())
    if plan.family not in able or not isinstance(vit, Vit):
        raise InputError(
            f"{exported.path} is of family {plan.family}: only of {', '.join(able)} can a file be "
            "timed at other token counts; 'ltmp calibrate --latency-target' measures others itself"
        )
    if plan.keep is not None:
        raise InputError(
            f"{exported.path} has a budget, which costs the same whatever an image keeps; give the "
            "file without (--mode dynamic)"
        )
    return vit


def of_file(
    exported: ExportedModel, subject: Subject, settings: Settings, progress: Progress
) -> Iterator[Variant]:
    """A file at about six different shares of the work, see `require_variable`."""
    vit = require_variable(exported)
    if families.load(exported.plan.family).counts:
        plans = _of_rates(exported, vit)
    else:
        plans = _of_shifts(exported, vit, subject, settings, progress)
    for label, plan in plans.items():
        progress(f"writing the file at {label}")
        yield Variant(label, plan, rebuilt(exported, plan, exported.precision))


def _of_rates(exported: ExportedModel, vit: Vit) -> dict[str, Plan]:
    """By r, one for all blocks."""
    family = families.load(exported.plan.family)

    def share(rate: int) -> float:
        return work.share(vit, _placed(exported, rates.plan(family, (rate,) * vit.depth, vit)))

    chosen = spread({rate: share(rate) for rate in range(1, vit.tokens // 2 + 1)})
    plans = {rate: rates.plan(family, (rate,) * vit.depth, vit) for rate in map(int, chosen)}
    return {f"r {rate}": _placed(exported, plan) for rate, plan in plans.items()}


def _of_shifts(
    exported: ExportedModel, vit: Vit, subject: Subject, settings: Settings, progress: Progress
) -> dict[str, Plan]:
    """By thresholds moved together."""
    family, own = families.load(exported.plan.family), exported.plan.thresholds()

    def moved(by: float) -> Plan:
        return _placed(exported, family.freeze(shifted(own, by), vit.prefix))

    def share(by: float) -> float:
        progress(f"counting tokens with thresholds moved by {by:+.2f}")
        plan = moved(by)
        counts = counted(subject, plan, rebuilt(exported, plan, exported.precision), settings)
        return work.executed_share(vit, plan, counts)

    return {f"thresholds {by:+.2f}": moved(by) for by in spread(tried(share, SHIFTS))}


def _placed(exported: ExportedModel, plan: Plan) -> Plan:
    """A plan with what a file's says of places."""
    own = exported.plan
    return replace(
        plan, merged_position=own.merged_position, metric_position=own.metric_position,
        pool_sizes=own.pool_sizes,
    )  # fmt: skip


def tried(share: Callable[[float], float], first: tuple[float, ...]) -> dict[float, float]:
    """Shares of the work at some numbers, and between them where these lie far apart."""
    found = {at: share(at) for at in first}
    for _ in range(TRIALS):
        numbers = sorted(found)
        pairs = itertools.pairwise(numbers)
        low, high = max(pairs, key=lambda pair: abs(found[pair[0]] - found[pair[1]]))
        if abs(found[low] - found[high]) <= _GAP:
            break
        found[(low + high) / 2] = share((low + high) / 2)
    return found


def spread(shares: Mapping[float, float], count: int = POINTS) -> list[float]:
    """Of some numbers those whose shares of the work are spread most evenly, the largest first."""
    low, high = min(shares.values()), max(shares.values())
    wanted = [high + (low - high) * step / (count - 1) for step in range(count)]
    nearest = [min(shares, key=lambda at: abs(shares[at] - one)) for one in wanted]
    return list(dict.fromkeys(nearest))

"""Tables of what a check found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ltmp_export.parity.report import OUTPUTS, CheckReport, batch_name
from ltmp_export.reports.tables import COLOURS, UNKNOWN, add_row, figure, new_table
from ltmp_export.runtimes.session import ONNXRUNTIME

if TYPE_CHECKING:
    from ltmp_export.parity.lower_precision import Fidelity
    from ltmp_export.parity.masked_distance import MaskedDistance
    from ltmp_export.parity.summaries import StepSummary
    from ltmp_export.runtimes.saturation import Products

SHOWN_DIFFERENCES = 8
_SINGULAR = {"logits": "logit", "features": "feature"}
LEGEND = (
    "margin: of the nearest decision; rounding: the margin it explains; flips: decisions that "
    "differ, in so many images; scores, tokens: largest error; all relative"
)


def check_summary(report: CheckReport, blocks: bool = True) -> RenderableType:
    """A row for each batch, one for each step, the differences one by one, and the verdict."""
    parts: list[RenderableType] = []
    if report.comparisons:
        parts += [_batches_table(report), _invariance_line(report)]
        parts += [] if report.keep_tokens is None else [budget_line(report)]
    if report.blocks and blocks:
        parts += [_blocks_table(report), Text(LEGEND, "dim")]
    if report.fidelity is not None:
        parts.append(_fidelity(report.fidelity, report.precision))
    if report.products is not None:
        parts.append(_products(report.products, bool(report.saturates)))
    if report.masked is not None:
        parts.append(_masked(report.masked))
    if report.pictures is not None:
        parts.append(Text(report.pictures.describe()))
    lines = report.told()
    for line in lines[:SHOWN_DIFFERENCES]:
        verdict, rest = line.split(" ", 1)
        parts.append(Text("  ").append(verdict, COLOURS[verdict]).append(f" {rest}"))
    if len(lines) > SHOWN_DIFFERENCES:
        parts.append(Text(f"… and {len(lines) - SHOWN_DIFFERENCES} more (--json has all)"))
    parts.append(_verdict_line(report))
    return Group(*parts)


def _batches_table(report: CheckReport) -> Table:
    """A row for each batch size and order."""
    verdicts = ["equal", "borderline", "fail"]
    verdicts += ["inconclusive"] if report.of("inconclusive") else []
    names = list(report.comparisons[0].errors)
    classes = ["top-1"] if report.comparisons[0].top1 is not None else []
    heads = (f"largest {_SINGULAR.get(name, name)} error" for name in names)
    table = new_table("batch", "images", *verdicts, *heads, *classes)
    for run in dict.fromkeys((c.batch_size, c.order) for c in report.comparisons):
        rows = [c for c in report.comparisons if (c.batch_size, c.order) == run]
        same = sum(c.top1 == c.expected_top1 for c in rows)
        add_row(
            table,
            batch_name(*run),
            str(len(rows)),
            *(str(sum(c.verdict == verdict for c in rows)) for verdict in verdicts),
            *(f"{_worst([c.errors[name] for c in rows]):.1e}" for name in names),
            *(f"{same}/{len(rows)}" for _ in classes),
        )
    return table


def _worst(errors: Sequence[float]) -> float:
    """The largest; NaN if one is."""
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _invariance_line(report: CheckReport) -> Text:
    """How images in batches compare with the same images alone."""
    if not report.invariance:
        return Text("batch invariance: not checked, batch 1 only")
    total = len(report.invariance)
    alike = sum(one.verdict == "equal" for one in report.invariance)
    equal = [one for one in report.invariance if one.verdict == "equal"]
    within = (
        f", {name} within {max((one.errors[name] for one in equal), default=0.0):.1e}"
        for name in report.invariance[0].errors
    )
    line = f"batch invariance: {alike} of {total} as alone{''.join(within)}"
    return Text(line, "" if alike == total else "yellow")


def budget_line(report: CheckReport) -> Text:
    """How many images the file's budget leaves as they are."""
    fitting, total = report.fitting()
    line = f"budget: {fitting} of {total} images fit, and are compared with the method itself"
    if fitting == total:
        return Text(line)
    lost = max(c.overflow for c in report.comparisons)
    return Text(
        f"{line}; the others lose their least important tokens, up to {lost}, and are compared "
        "with that", "yellow",
    )  # fmt: skip


def _number(row: StepSummary) -> str:
    """The threshold of a step, or how many tokens it takes where the plan says so."""
    if row.threshold is not None:
        return f"{row.threshold:.6f}"
    return UNKNOWN if row.number is None else f"{row.number} tokens"


def _blocks_table(report: CheckReport) -> Table:
    """A row for each step of each block."""
    figures = ("threshold", "margin", "rounding", "flips", "images", "scores", "tokens")
    table = new_table("block", "step", *figures, left=2)
    for row in report.blocks:
        add_row(
            table,
            str(row.block),
            row.step,
            _number(row),
            f"{row.margin:.1e}",
            f"{row.bound:.1e}",
            str(row.flips),
            str(row.flipped_images),
            f"{row.score_error:.1e}",
            f"{row.token_error:.1e}",
        )
    return table


def _verdict_line(report: CheckReport) -> Text:
    """The verdict and what it means."""
    flips = sum(bool(c.flips) for c in report.comparisons)
    outputs_only = "every output agrees with the reference"
    everything = "every decision and every number agrees with the reference"
    meaning = {
        "equal": outputs_only if report.proved_at == OUTPUTS else everything,
        "borderline": f"{flips} of {len(report.comparisons)} comparisons hold decisions that "
        "differ, each within rounding of its threshold; all numbers agree under them",
        "fail": "the file does not compute what the checkpoint computes",
        "inconclusive": "not everything could be compared, which proves nothing",
        "bounded": f"the file computes what its {report.precision} states, and is within the "
        "bounds of that precision",
    }[report.verdict]
    line = Text.assemble((report.verdict, f"bold {COLOURS[report.verdict]}"), f": {meaning}")
    where = "" if report.runtime.startswith(ONNXRUNTIME) else f", in {report.runtime}"
    if report.proved_at == OUTPUTS and report.passed():
        where += ": proved at outputs only"
    line.append(f" ({report.images}){where}")
    return line.append(f"\n{report.reason}") if report.reason else line


def _fidelity(found: Fidelity, precision: str) -> RenderableType:
    """A file of lower precision against the float32 model."""
    table = new_table(f"{precision} against float32", "found", "bound", left=1)
    bounds = found.bounds
    if found.top1 is not None:
        add_row(table, "same top-1", f"{found.top1:.1%}", f"at least {bounds.top1:.0%}")
    add_row(
        table, "same decisions on the same tokens", f"{found.decisions:.2%}",
        f"at least {bounds.decisions:.0%}",
    )  # fmt: skip
    add_row(table, "same token count, by image and block", f"{found.counts:.1%}", "")
    add_row(
        table, f"{found.of} under the same decisions", f"{found.answer:.1e}",
        f"at most {bounds.answer:g}",
    )  # fmt: skip
    if found.own_answer is not None:
        add_row(table, f"{found.of}, each deciding by itself", f"{found.own_answer:.1e}", "")
    return table


def _products(found: Products, saturates_here: bool) -> Text:
    """Whether int8 products are right on every processor, and what this one does."""
    here = "saturates" if saturates_here else "does not saturate"
    line = f"int8 products: {found.describe()}; this processor {here} larger ones"
    return Text(line, "" if found.exact else "yellow")


def _masked(found: MaskedDistance) -> RenderableType:
    """The published masked form against the deployed model."""
    table = new_table("block", "tokens deployed", "published masked form", "apart in an image")
    rows = zip(found.deployed, found.masked, found.apart, strict=True)
    for block, figures in enumerate(rows):
        add_row(table, str(block), *(f"{tokens:.1f}" for tokens in figures))
    return Group(
        table,
        Text(
            f"published masked form: same top-1 as deployed on {found.agreement:.1%} of "
            f"{found.images} images, same tokens in every block on {found.counts_equal:.1%}, "
            f"logits up to {figure(found.logit_difference)} apart"
        ),
    )

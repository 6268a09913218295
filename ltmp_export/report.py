"""Reports shown: tables for people, JUnit for CI. JSON comes from the reports themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ltmp_export.latency import BenchReport, Timing
from ltmp_export.parity import CheckReport, Comparison
from ltmp_export.pipeline import DemoReport, ExportReport

COLOURS = {"equal": "green", "borderline": "yellow", "fail": "red", "inconclusive": "red"}
SHOWN_DIFFERENCES = 8
UNKNOWN = "–"


def to_json(document: Mapping[str, Any]) -> str:
    """A JSON text that strict parsers read: no NaN, no infinity."""
    return json.dumps(document, indent=2, allow_nan=False, default=list) + "\n"


def export_summary(report: ExportReport) -> RenderableType:
    """One line on the file, one on the check."""
    size = report.bytes / 1e6
    lines = [
        Text(
            f"{report.output}: {report.family} {report.architecture}, opset {report.opset}, "
            f"{size:.1f} MB, {report.seconds:.1f} s"
        )
    ]
    if report.check is None:
        lines.append(Text("not checked (--no-check); run 'ltmp check' before deploying", "yellow"))
    else:
        images = len({c.image for c in report.check.comparisons})
        sizes = _sizes(c.batch_size for c in report.check.comparisons)
        line = Text("check: ").append(report.check.verdict, COLOURS[report.check.verdict])
        where = f" on {images} images ({report.check.images}) at batches {sizes}"
        lines.append(line.append(where))
    return Group(*lines)


def check_summary(report: CheckReport) -> RenderableType:
    """A row for each batch size, the differences one by one, and the verdict."""
    table = _table("batch", "images", "equal", "borderline", "fail", "largest logit error", "top-1")
    for size in dict.fromkeys(c.batch_size for c in report.comparisons):
        rows = [c for c in report.comparisons if c.batch_size == size]
        count = {v: sum(c.verdict == v for c in rows) for v in COLOURS}
        undisputed = [c.logit_error for c in rows if c.verdict != "borderline"]
        worst = max(undisputed, default=math.nan)
        same = sum(c.top1 == c.expected_top1 for c in rows)
        _add_row(
            table,
            str(size),
            str(len(rows)),
            *(str(count[verdict]) for verdict in ("equal", "borderline", "fail")),
            f"{worst:.1e}",
            f"{same}/{len(rows)}",
        )
    parts: list[RenderableType] = [table]
    differing = [*report.of("fail"), *report.of("borderline")]
    parts += [_difference(comparison) for comparison in differing[:SHOWN_DIFFERENCES]]
    if len(differing) > SHOWN_DIFFERENCES:
        parts.append(Text(f"… and {len(differing) - SHOWN_DIFFERENCES} more (--json has all)"))
    parts.append(_verdict(report))
    return Group(*parts)


def _difference(comparison: Comparison) -> Text:
    line = Text("  ").append(comparison.verdict, COLOURS[comparison.verdict])
    return line.append(f" {comparison.image}, batch {comparison.batch_size}: {comparison.reason}")


def _verdict(report: CheckReport) -> Text:
    meaning = {
        "equal": "every token count and every logit agrees with the reference",
        "borderline": "differences only where a score lies on its threshold within rounding",
        "fail": "the file does not compute what the checkpoint computes",
        "inconclusive": "nothing was compared",
    }[report.verdict]
    line = Text.assemble((report.verdict, f"bold {COLOURS[report.verdict]}"), f": {meaning}")
    return line.append(f" ({report.images})")


def bench_summary(report: BenchReport) -> RenderableType:
    """A row for each model and batch size, then what the images cost."""
    per_image = ("median ms", "p10", "p90", "images/s", "speed-up")
    table = _table("batch", "model", "GMACs", "mean tokens", *per_image, left=2)
    mean_tokens = sum(map(sum, report.tokens)) / sum(map(len, report.tokens))
    dense_tokens = UNKNOWN if report.baseline_gmacs is None else str(report.initial_tokens)
    for timing in report.timings:
        reduced = timing.model == "reduced"
        ratio = report.speedup(timing.batch_size) if reduced else None
        _add_row(
            table,
            str(timing.batch_size),
            timing.model,
            _figure(report.gmacs if reduced else report.baseline_gmacs),
            f"{mean_tokens:.1f}" if reduced else dense_tokens,
            *(_figure(value) for value in (timing.median, timing.p10, timing.p90)),
            f"{timing.images_per_second:.1f}",
            "" if ratio is None else f"{ratio:.2f}x",
        )
    share = report.gmacs / report.dense_gmacs
    parts: list[RenderableType] = [table, _cheapest_and_dearest(report, report.timings[0])]
    if report.accuracy is not None:
        line = f"top-1: {report.accuracy:.1%}"
        if report.baseline_accuracy is not None:
            line += f", {report.baseline} {report.baseline_accuracy:.1%}"
        parts.append(Text(line))
    parts.append(
        Text(
            f"{share:.1%} of the dense multiply-accumulates; {len(report.names)} images "
            f"({report.images}), {report.provider}, {report.threads} threads"
        )
    )
    return Group(*parts)


def _cheapest_and_dearest(report: BenchReport, timing: Timing) -> RenderableType:
    """The images of fewest, middling and most tokens, with their times."""
    table = _table("image", "tokens after each block", "ms", left=2)
    order = sorted(range(len(report.tokens)), key=lambda i: sum(report.tokens[i]))
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        tokens = " ".join(map(str, report.tokens[index]))
        _add_row(table, report.names[index], tokens, _figure(timing.per_image[index]))
    return table


def inspect_summary(facts: Mapping[str, Any]) -> RenderableType:
    """What `inspection.inspect` found, as a list of facts and a table of thresholds."""
    if facts["kind"] == "incomplete checkpoint":
        return _incomplete_summary(facts)
    vit, preprocessing = facts["vit"], facts["preprocessing"]
    side = "x".join(map(str, vit["image_size"]))
    patch = "x".join(map(str, vit["patch_size"]))
    rows = {
        facts["kind"]: f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)",
        "family": facts["family"],
        "architecture": f"{vit['name']}: {vit['depth']} blocks, width {vit['width']}, "
        f"{vit['heads']} heads, MLP {vit['mlp_width']}, {vit['activation']}, pool {vit['pool']}",
        "images": f"{vit['in_chans']} channels, {side}, patches {patch}; {vit['classes']} classes",
        "normalisation": f"mean {_vector(preprocessing['mean'])}, "
        f"std {_vector(preprocessing['std'])}, crop {preprocessing['crop_pct']}, "
        f"{preprocessing['interpolation']}",
        "dense cost": f"{facts['dense_gmacs']:.3g} GMACs",
    }
    rows |= _model_rows(facts) if facts["kind"] == "model" else _checkpoint_rows(facts)
    parts: list[RenderableType] = [_facts(rows), _threshold_table(facts["thresholds"])]
    parts += [Text(f"warning: {text}", "yellow") for text in facts.get("warnings", ())]
    return Group(*parts)


def _incomplete_summary(facts: Mapping[str, Any]) -> RenderableType:
    kinds = facts["thresholds"].items()
    held = ", ".join(f"{kind} in {len(values)} blocks" for kind, values in kinds if values)
    rows = {
        facts["kind"]: f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)",
        "arch in the file": facts["arch"] or "not stated",
        "weights": f"{facts['tensors']} tensors, {facts['parameters'] / 1e6:.2f} M parameters",
        "thresholds": held or "none",
        "sha256": facts["sha256"],
        "missing": facts["missing"],
    }
    return _facts(rows)


def _facts(rows: Mapping[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in rows.items():
        grid.add_row(Text(key, "bold"), Text(value))
    return grid


def _checkpoint_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "parameters": f"{facts['parameters'] / 1e6:.2f} M",
        "arch in the file": facts["arch"] or "not stated",
        "sha256": facts["sha256"],
    }
    return rows | ({"assumed": "; ".join(facts["notes"])} if facts["notes"] else {})


def _model_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    def values(entries: Iterable[Mapping[str, Any]]) -> str:
        return ", ".join(f"{e['name']} {e['type']}{e['shape']}".replace("'", "") for e in entries)

    operators = sorted(facts["operators"].items(), key=lambda pair: -pair[1])
    return {
        "opset": f"{facts['opset']} (IR version {facts['ir_version']})",
        "inputs": values(facts["inputs"]),
        "outputs": values(facts["outputs"]),
        "operators": f"{facts['nodes']}: " + ", ".join(f"{kind} {n}" for kind, n in operators),
        "checkpoint sha256": facts["metadata"].get("ltmp.checkpoint_sha256", "not stated"),
    }


def _threshold_table(thresholds: Mapping[str, Sequence[float]]) -> RenderableType:
    table = _table("block", *(f"{kind} threshold" for kind in thresholds))
    for block, values in enumerate(zip(*thresholds.values(), strict=True)):
        _add_row(table, str(block), *(f"{value:.6f}" for value in values))
    return table


def demo_summary(report: DemoReport) -> RenderableType:
    """The check and bench tables and what they mean, in a few lines."""
    bench = report.bench
    saved, speedup = 1 - bench.gmacs / bench.dense_gmacs, bench.speedup(1)
    if speedup is None or bench.accuracy is None or bench.baseline_accuracy is None:
        raise ValueError("the demo times labelled images against the dense model")
    story = (
        f"What happened: a ViT fine-tuned with LTMP on handwritten digits became "
        f"{report.export.output}. It drops {saved:.0%} of the multiply-accumulates, and is "
        f"{speedup:.2f} times as fast as the dense model of the same weights, with "
        f"{bench.accuracy:.1%} of the digits right against {bench.baseline_accuracy:.1%}. "
        f"Each image keeps its own number of tokens, also inside a batch. "
        f"Next: ltmp inspect {report.export.output}"
    )
    if not report.check.passed():
        story = f"The check failed: do not use {report.export.output}, and report this."
    return Group(
        export_summary(report.export),
        check_summary(report.check),
        bench_summary(bench),
        Text(story),
    )


def to_junit(report: CheckReport, strict: bool = False) -> bytes:
    """A JUnit document: one test case for each image and batch size."""
    comparisons = report.comparisons
    wrong = ("fail", "borderline") if strict else ("fail",)
    failures = sum(c.verdict in wrong for c in comparisons)
    suite = ElementTree.Element(
        "testsuite",
        name="ltmp check",
        tests=str(max(len(comparisons), 1)),
        failures=str(failures),
        errors=str(int(not comparisons)),
    )
    for comparison in comparisons:
        name = f"{comparison.image} batch {comparison.batch_size}"
        case = ElementTree.SubElement(suite, "testcase", classname=report.model, name=name)
        if comparison.verdict in wrong:
            reason = comparison.reason
            ElementTree.SubElement(case, "failure", type=comparison.verdict, message=reason)
        elif comparison.reason:
            text = f"{comparison.verdict}: {comparison.reason}"
            ElementTree.SubElement(case, "system-out").text = text
    if not comparisons:
        case = ElementTree.SubElement(suite, "testcase", classname=report.model, name="check")
        message = "nothing was compared"
        ElementTree.SubElement(case, "error", type=report.verdict, message=message)
    for element in suite.iter():
        for key, value in element.attrib.items():
            element.set(key, "".join(c if c.isprintable() else "\ufffd" for c in value))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        justify: JustifyMethod = "left" if index < left else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=index >= left)
    return table


def _add_row(table: Table, *cells: str) -> None:
    """Cells as they are: names of files and images are data, not markup."""
    table.add_row(*(Text(cell) for cell in cells))


def _figure(value: float | None) -> str:
    """Three significant digits or whole numbers, never an exponent."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _vector(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)


def _sizes(values: Iterable[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))

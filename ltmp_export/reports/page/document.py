"""The page: its head, which lets nothing else run, and the parts that were asked for."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltmp_export.plan.faces import made
from ltmp_export.reports.bench import bench_summary
from ltmp_export.reports.check import check_summary
from ltmp_export.reports.inspection import inspect_summary, margins_table
from ltmp_export.reports.page import charts, strips
from ltmp_export.reports.page.elements import Html, element, joined
from ltmp_export.reports.page.findings import Findings, Pictures, Tokens
from ltmp_export.reports.page.pictures import pictures
from ltmp_export.reports.page.tables import rendered, table

LONGEST = 600  # characters of one value of the metadata


@dataclass(frozen=True)
class Part:
    """A chapter.

    Attributes:
        name: Its identifier.
        title: Its heading.
        content: What stands under it.
    """

    name: str
    title: str
    content: Html


def document(found: Findings) -> bytes:
    """The file, whole."""
    chapters = list(parts(found))
    title = f"{Path(found.facts['path']).name}: report"
    links = (element("li", element("a", part.title, href=f"#{part.name}")) for part in chapters)
    made_by = f"Made by ltmp {version('ltmp')}. Nothing on this page is loaded from elsewhere."
    body = element(
        "body",
        element("header", element("h1", title), element("p", made_by, class_="told")),
        element("nav", element("ul", *links), aria_label="parts"),
        element("main", *map(_section, chapters)),
        Html(f"<script>{script()}</script>") if found.pictures is not None else "",
    )
    page = element("html", _head(title), body, lang="en")
    return f"<!DOCTYPE html>\n{page.source}\n".encode()


def parts(found: Findings) -> Iterator[Part]:
    """The chapters there is something for, in their order."""
    if found.check is not None:
        yield Part("check", "Does it compute what its checkpoint says?", _check(found))
    yield Part("model", "What it is and where it comes from", _model(found))
    if found.tokens is not None:
        yield Part("tokens", "Tokens by block", _tokens(found.tokens))
    if found.pictures is not None:
        yield Part("pictures", strips.title(found.pictures.courses), _pictures(found.pictures))
    lines = _thresholds(found.facts)
    if lines or found.margins is not None:
        title = "Thresholds" if found.margins is None else "Thresholds and margins"
        yield Part("margins", title, _margins(lines, found.margins))
    if found.bench is not None:
        yield Part("times", "Time", _times(found))
    if found.notes or found.warnings:
        yield Part("assumed", "What was assumed, and what to know", _assumed(found))


@functools.cache
def script() -> str:
    """The only one."""
    return _beside("page.js")


@functools.cache
def style() -> str:
    """The only one."""
    return _beside("page.css")


def policy() -> str:
    """What a browser may do with the page: show it, in this style, with this script."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style())}; "
        f"script-src {_hash(script())}; base-uri 'none'; form-action 'none'"
    )


def _beside(name: str) -> str:
    source = resources.files("ltmp_export") / "reports" / "page" / name
    return source.read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """Of the text between the tags, as browsers take it."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _head(title: str) -> Html:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        Html(f"<style>{style()}</style>"),
    )


def _section(part: Part) -> Html:
    heading = element("h2", part.title, id=f"{part.name}-heading")
    return element(
        "section", heading, part.content, id=part.name, aria_labelledby=f"{part.name}-heading"
    )


def _check(found: Findings) -> Html:
    if found.check is None:
        raise ValueError("nothing was checked")
    passed = found.check.passed()
    line = element(
        "p", element("strong", found.check.verdict), f": {found.check.model} against "
        f"{found.check.checkpoint}, {found.check.images}",
        class_="verdict" if passed else "verdict doubt",
    )  # fmt: skip
    return joined(line, rendered(check_summary(found.check), "check"))


def _model(found: Findings) -> Html:
    facts = found.facts
    rows = [
        (key, value if len(value) <= LONGEST else f"{value[:LONGEST]} … ({len(value)} characters)")
        for key, value in sorted(facts["metadata"].items())
    ]
    shown = rendered(inspect_summary(facts), "model")
    digest = element("p", f"sha256 of the file: {found.sha256}")
    metadata = element(
        "details", element("summary", "metadata, as the file has them"),
        table([], rows, "metadata", left=2),
    )  # fmt: skip
    return joined(shown, digest, metadata if rows else "")


def _tokens(found: Tokens) -> Html:
    return joined(
        element("p", f"{found.images}, each run alone in onnxruntime."),
        charts.tokens(found.counts, found.initial),
    )


def _pictures(found: Pictures) -> Html:
    drawn = [strips.of(course) for course in found.courses]
    return joined(
        element("p", f"{found.images}, by the file's own decisions."),
        pictures(drawn, found.prepared, strips.legend(found.courses)),
    )


def _thresholds(facts: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """By kind of step: (block, threshold)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for block, steps in enumerate(facts["plan"]["blocks"]):
        for step in map(made, steps):
            if step.learned is not None:
                found.setdefault(step.action, []).append((block, step.learned))
    return found


def _margins(
    lines: Mapping[str, list[tuple[float, float]]], found: Mapping[str, Any] | None
) -> Html:
    shown = [charts.thresholds(lines)] if lines else []
    if found is not None:
        if charts.smallest(found):
            shown.append(charts.margins(found))
        whose = "Margins are those of the checkpoint itself, computed by the reference in float64."
        shown += [element("p", whose, class_="told"), rendered(margins_table(found), "margins")]
    return joined(*shown)


def _times(found: Findings) -> Html:
    if found.bench is None:
        raise ValueError("nothing was timed")
    machine = found.bench.environment
    where = f"{machine.processor}, {machine.system}, onnxruntime {machine.onnxruntime}"
    return joined(
        element("p", where),
        charts.times(found.bench),
        rendered(bench_summary(found.bench, compact=True), "times"),
    )


def _assumed(found: Findings) -> Html:
    shown = []
    for title, lines in (("Assumed", found.notes), ("To know", found.warnings)):
        if lines:
            listed = element("ul", *(element("li", line) for line in lines))
            shown.append(joined(element("h3", title), listed))
    return joined(*shown)

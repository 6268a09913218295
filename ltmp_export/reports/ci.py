"""What CI systems show: a JUnit document, and GitHub's annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from ltmp_export.parity.report import CheckReport, Comparison, Invariance, batch_name, worst

Case = tuple[str, Sequence[Comparison | Invariance]]
SHOWN_ANNOTATIONS = 10  # GitHub shows no more of a kind in one step


def to_junit(report: CheckReport, strict: bool = False) -> bytes:
    """A JUnit document: a test case for each group of images and batch, and for the file.

    A comparison that fails is a `failure`, one that is inconclusive an `error`; borderline ones are
    told in `system-out`, and failures if `strict`.
    """
    wrong = {"fail": "failure", "inconclusive": "error"}
    wrong |= {"borderline": "failure"} if strict else {}
    suite = ElementTree.Element("testsuite", name="ltmp check")
    _file_case(suite, report)
    for name, judged in _cases(report):
        case = ElementTree.SubElement(suite, "testcase", classname=report.model, name=name)
        verdict = worst(judged)
        told = [one for one in judged if one.reason]
        lines = "\n".join(f"{one.verdict} {one.title()}: {one.reason}" for one in told)
        if verdict in wrong:
            first = next(one for one in judged if one.verdict == verdict)
            count = sum(one.verdict == verdict for one in judged)
            message = f"{count} of {len(judged)}; {first.title()}: {first.reason}"
            element = ElementTree.SubElement(case, wrong[verdict], type=verdict, message=message)
            element.text = lines
        elif told:
            ElementTree.SubElement(case, "system-out").text = lines
    suite.set("tests", str(len(suite)))
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(len(suite.findall(f"testcase/{kind}"))))
    for element in suite.iter():
        element.text = None if element.text is None else _printable(element.text)
        for key, value in element.attrib.items():
            element.set(key, _printable(value))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _file_case(suite: ElementTree.Element, report: CheckReport) -> None:
    """What holds for the file as a whole: its tensors are there, its thresholds are right."""
    case = ElementTree.SubElement(suite, "testcase", classname=report.model, name="file")
    if report.reason:
        kind = "error" if report.verdict == "inconclusive" else "failure"
        ElementTree.SubElement(case, kind, type=report.verdict, message=report.reason)


def _cases(report: CheckReport) -> Iterator[Case]:
    keys = dict.fromkeys((c.group, c.batch_size, c.order) for c in report.comparisons)
    for group, size, order in keys:
        own = [
            j for j in report.judged() if (j.group, j.batch_size, j.order) == (group, size, order)
        ]
        title = f"{group}, batch {batch_name(size, order)}"
        yield title, [j for j in own if isinstance(j, Comparison)]
        if invariance := [j for j in own if isinstance(j, Invariance)]:
            yield f"{title}, as alone", invariance


def _printable(text: str) -> str:
    """XML has no control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def github_annotations(report: CheckReport, strict: bool = False) -> list[str]:
    """GitHub's workflow commands for what differs: errors for what fails, else warnings.

    See "Workflow commands for GitHub Actions" in GitHub's documentation.
    """
    shown = report.verdict if report.reason else worst(report.judged())
    if shown == "equal":
        return []
    level = "warning" if report.passed(strict) else "error"
    title = f"ltmp check: {report.verdict}"
    messages = [report.reason] if report.reason else []
    worst_first = [line.partition(" ") for line in report.told()]
    messages += [f"{report.model}: {text}" for verdict, _, text in worst_first if verdict == shown]
    if len(messages) > SHOWN_ANNOTATIONS:
        more = len(messages) - SHOWN_ANNOTATIONS + 1
        messages = [*messages[: SHOWN_ANNOTATIONS - 1], f"{report.model}: {more} more like these"]
    return [f"::{level} title={_escaped(title, ':,')}::{_escaped(text)}" for text in messages]


def _escaped(text: str, more: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in text)

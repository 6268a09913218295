"""What CI systems and scripts read of a check."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from importlib import resources
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
from rich.console import Console

from ltmp_export import reports
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity.report import CheckReport
from ltmp_export.steps.prune.step import Prune
from tests.makers.checks import check
from tests.makers.edge_cases import on_the_threshold, with_threshold
from tests.makers.mutations import MUTATIONS

Digits = Callable[[str], Checkpoint]
Reports = dict[str, CheckReport]


@pytest.fixture(scope="module")
def checks(digits: Digits) -> Reports:
    """A report of each verdict, on four images in two groups at batches 1 and 3."""
    images = inputs.embedded_digits().select(4)
    names = ("left/a", "left/b", "right/c", "right/d")
    images = dataclasses.replace(images, names=names)

    right = to_onnx(digits("ltp"), opset=17)
    edge = on_the_threshold(digits("ltp"), images, Prune)
    nan = dataclasses.replace(images, pixels=images.pixels * np.float32(np.nan))
    none = onnx.ModelProto.FromString(right.SerializeToString().replace(b"/kept", b"/left"))
    wrong = MUTATIONS["importance of one head"].mutate(digits("ltp"), 2)
    other = with_threshold(digits("ltp"), Prune, 0.02)
    return {
        "equal": check(right, digits("ltp"), images, 1, 3),
        "borderline": check(to_onnx(edge, opset=17), edge, images, 1, 3),
        "fail": check(wrong, digits("ltp"), images, 1, 3),
        "another threshold": check(to_onnx(other, opset=17), digits("ltp"), images, 1, 3),
        "nan": check(right, digits("ltp"), nan, 2),
        "no taps": check(none, digits("ltp"), images, 1, 3),
    }


def test_the_verdicts_are_as_meant(checks: Reports) -> None:
    assert {name: report.verdict for name, report in checks.items()} == {
        "equal": "equal",
        "borderline": "borderline",
        "fail": "fail",
        "another threshold": "fail",
        "nan": "inconclusive",
        "no taps": "inconclusive",
    }


NAMES = ("equal", "borderline", "fail", "another threshold", "nan", "no taps")


@pytest.mark.parametrize("name", NAMES)
def test_json_is_as_the_schema_says(checks: Reports, name: str) -> None:
    path = resources.files("ltmp_export") / "schemas" / "check.schema.json"
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(reports.to_json(checks[name].to_json()))
    jsonschema.validate(document, schema)
    for changed in (
        {**document, "verdict": "fine"},
        {**document, "more": 1},
        {k: v for k, v in document.items() if k != "blocks"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, schema)


class TestJUnit:
    @staticmethod
    def suite(report: CheckReport, strict: bool = False) -> ElementTree.Element:
        suite = ElementTree.fromstring(reports.to_junit(report, strict))
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("errors") == str(len(suite.findall("testcase/error")))
        return suite

    def test_a_case_for_each_group_and_batch(self, checks: Reports) -> None:
        names = [case.get("name") for case in self.suite(checks["equal"])]
        assert names == [
            "file",
            *(
                f"{group}, {batch}"
                for group in ("left", "right")
                for batch in (
                    "batch 1",
                    "batch 3",
                    "batch 3, as alone",
                    "batch 3 reversed",
                    "batch 3 reversed, as alone",
                )
            ),
        ]

    def test_equal_has_no_failure(self, checks: Reports) -> None:
        suite = self.suite(checks["equal"], strict=True)
        assert (suite.get("failures"), suite.get("errors")) == ("0", "0")

    def test_fail(self, checks: Reports) -> None:
        suite = self.suite(checks["fail"])
        assert suite.get("failures") == "6"  # every group and batch; alone they are as wrong
        failure = suite.find("testcase[@name='right, batch 3']/failure")
        assert failure is not None
        assert str(failure.get("message")).startswith(
            "2 of 2; right/c, batch 3: block 2: the importance"
        )
        assert len((failure.text or "").splitlines()) == 2

    def test_another_threshold_fails_the_file(self, checks: Reports) -> None:
        failure = self.suite(checks["another threshold"]).find("testcase[@name='file']/failure")
        assert failure is not None
        assert "block 0: the prune threshold is 0.0199999996 in" in str(failure.get("message"))

    def test_borderline_is_told_and_with_strict_a_failure(self, checks: Reports) -> None:
        suite = self.suite(checks["borderline"])
        assert suite.get("failures") == "0"
        told = [out.text or "" for out in suite.findall("testcase/system-out")]
        assert len(told) == 3
        assert told[0].startswith("borderline left/a, batch 1: block 0: token ")
        assert self.suite(checks["borderline"], strict=True).get("failures") == "3"

    def test_inconclusive_is_an_error(self, checks: Reports) -> None:
        assert self.suite(checks["no taps"]).get("errors") == "1"
        assert self.suite(checks["nan"]).get("failures") == "0"
        assert int(self.suite(checks["nan"]).get("errors") or 0) > 1

    def test_control_characters_of_names_are_replaced(self, checks: Reports) -> None:
        first = dataclasses.replace(checks["fail"].comparisons[0], image="a\x00b")
        report = dataclasses.replace(checks["fail"], comparisons=(first,), invariance=())
        failure = self.suite(report).find("testcase/failure")
        assert failure is not None
        assert "a\ufffdb, batch 1" in str(failure.get("message"))


class TestGitHub:
    def test_nothing_where_all_is_equal(self, checks: Reports) -> None:
        assert reports.github_annotations(checks["equal"]) == []

    def test_errors_for_what_fails(self, checks: Reports) -> None:
        lines = reports.github_annotations(checks["fail"])
        assert len(lines) == 4
        start = "::error title=ltmp check%3A fail::model: left/a, batches 1, 3, 3 reversed: "
        assert lines[0].startswith(f"{start}block 2: ")

    def test_not_more_than_are_shown(self, checks: Reports) -> None:
        first = checks["fail"].comparisons[0]
        many = tuple(dataclasses.replace(first, image=str(i)) for i in range(12))
        lines = reports.github_annotations(dataclasses.replace(checks["fail"], comparisons=many))
        assert len(lines) == 10
        assert lines[-1].endswith("::model: 3 more like these")

    def test_warnings_for_what_is_borderline(self, checks: Reports) -> None:
        lines = reports.github_annotations(checks["borderline"])
        assert len(lines) == 1
        assert all(line.startswith("::warning title=ltmp check%3A borderline::") for line in lines)
        assert reports.github_annotations(checks["borderline"], True)[0].startswith("::error ")

    def test_the_reason_of_the_file_comes_first(self, checks: Reports) -> None:
        assert "lacks the named tensor" in reports.github_annotations(checks["no taps"])[0]
        assert "prune threshold is" in reports.github_annotations(checks["another threshold"])[0]

    def test_names_cannot_write_commands(self, checks: Reports) -> None:
        first = dataclasses.replace(checks["fail"].comparisons[0], image="a\n::set-output x=%0A")
        report = dataclasses.replace(checks["fail"], comparisons=(first,), invariance=())
        (line,) = reports.github_annotations(report)
        assert "\n" not in line
        assert "a%0A::set-output x=%250A" in line


def printed(report: CheckReport) -> str:
    console = Console(width=200, soft_wrap=True, highlight=False)
    with console.capture() as captured:
        console.print(reports.check_summary(report))
    return captured.get()


@pytest.mark.parametrize("name", NAMES)
def test_the_table_tells_verdict_and_reason(checks: Reports, name: str) -> None:
    shown = printed(checks[name])
    assert re.search(f"^{checks[name].verdict}: ", shown, re.MULTILINE)
    assert (checks[name].reason or "nothing") in shown or not checks[name].reason
    assert all(line in shown for line in checks[name].told())
    if checks[name].comparisons:
        assert re.search(r"^5 +prune +0\.0\d+ ", shown, re.MULTILINE)
        assert "batch invariance: " in shown


def test_flips_are_counted_in_the_table(checks: Reports) -> None:
    shown = printed(checks["borderline"])
    assert re.search(r"^0 +prune +0\.0\d+ +0\.0e\+00 .* 3 +1 +", shown, re.MULTILINE)
    assert "3 of 12 comparisons hold decisions that differ" in shown

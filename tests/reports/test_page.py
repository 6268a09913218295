"""The page of `ltmp report`: whole HTML, every text a text, nothing else allowed to run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.text import Text

from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.owned import Owned
from ltmp_export.reports.page import axes, charts, document, elements, pictures, strips, tables
from ltmp_export.reports.page.elements import Html, element
from ltmp_export.reports.page.findings import Findings, Tokens
from ltmp_export.reports.page.strips import Strip
from tests.makers.pages import Page, require_policy, require_valid

HOSTILE = "<img src=x onerror=alert(1)>\"'&</script></style>\u202e\x00\x1b\udc80"
SHOWN = "<img src=x onerror=alert(1)>\"'&</script></style>\\u202e\\x00\\x1b\\udc80"


def facts(**changed: Any) -> dict[str, Any]:
    """Of a file, as far as a page asks, from a file of this tool."""
    return {"path": "m.onnx", "metadata": {}, "plan": {"blocks": []}} | changed


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Findings:
    """A page of little: the description of the file is left out."""
    monkeypatch.setattr(document, "inspect_summary", lambda found: Text(found["path"]))
    return Findings(facts=facts(), sha256="0" * 64)


def test_what_was_not_asked_for_is_left_out(bare: Findings) -> None:
    page = require_valid(document.document(bare))
    require_policy(page)
    assert page.headings() == ["model"]
    assert not page.of("script")
    assert not page.of("details")


def test_hostile_names_and_metadata_are_text(bare: Findings) -> None:
    told = replace(
        bare,
        facts=facts(path=f"a/{HOSTILE}.onnx", metadata={HOSTILE: HOSTILE, "long": "<" * 5000}),
        tokens=Tokens(HOSTILE, 65, ((40, 30), (50, 20))),
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
    )
    source = document.document(told)
    page = require_valid(source)
    require_policy(page)
    assert page.headings() == ["model", "tokens", "assumed"]
    assert not page.of("img")
    assert sum(SHOWN in words for words in page.texts) == 6
    (title, *_) = (words for words in page.texts if words.endswith(": report"))
    assert title.startswith("style>\\u202e\\x00")  # a name is what is behind the last slash
    assert len(source) < 40_000


@pytest.mark.parametrize("words", [HOSTILE, "", "a\nb", "é漢", "&amp;"])
def test_a_string_is_text_wherever_it_stands(words: str) -> None:
    made = element("p", words, title=words, hidden=True, dir=False, tabindex=3)
    page = Page(made.source.encode())
    assert page.of("p") == [{"title": elements.printable(words), "hidden": "", "tabindex": "3"}]
    assert "".join(page.texts) == elements.printable(words)


def test_only_markup_is_markup() -> None:
    assert element("p", Html("<br>"), "<br>").source == "<p><br>&lt;br&gt;</p>"
    with pytest.raises(TypeError, match="no element for str"):
        tables.rendered("plain", "what")


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 65, [0, 20, 40, 60]),
        (0, 0.0066, [0, 0.002, 0.004, 0.006]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, found: list[float]) -> None:
    assert axes.ticks(low, high) == found


def test_axes_keep_order_and_ends() -> None:
    plain = axes.Axes((0, 10), (0, 5), "x", "y")
    assert plain.right(0) == axes.LEFT
    assert plain.right(10) == axes.WIDTH - axes.RIGHT
    assert plain.down(5) == axes.TOP == plain.down(99)
    steep = axes.Axes((0, 10), (1e-6, 1e-2), "x", "y", logarithmic=True)
    downs = [steep.down(10.0**-power) for power in (2, 3, 4, 5, 6)]
    steps = {round(b - a, 6) for a, b in itertools.pairwise(downs)}
    assert len(steps) == 1
    assert steep.down(0.0) == downs[-1]


def test_the_box_of_a_block() -> None:
    """Quantiles of five images where they belong, in the picture and in its table."""
    page = Page(charts.tokens([(10,), (20,), (30,), (40,), (50,)], 60).source.encode())
    (box,) = page.of("rect")
    frame = axes.Axes((-0.6, 0.6), (0, 60), "", "")
    assert math.isclose(float(box["y"]), frame.down(40), abs_tol=0.01)
    assert math.isclose(float(box["height"]), frame.down(20) - frame.down(40), abs_tol=0.01)
    assert page.texts[-6:] == ["0", "10", "20", "30", "40", "50"]


def test_margins_of_nothing_and_of_no_distance() -> None:
    rows = [
        {"block": 0, "step": "merge", "quantiles": [0.0, 1e-4, 1e-2]},
        {"block": 1, "step": "merge", "quantiles": [None, None, None]},
        {"block": 1, "step": "prune", "quantiles": [3e-5, 1e-4, 1e-2]},
    ]
    found = {"steps": rows, "count": 4}
    assert charts.smallest(found) == {"merge": [(0, 0.0)], "prune": [(1, 3e-5)]}
    page = Page(charts.margins(found).source.encode())
    assert len(page.of("circle")) == 1 + 1  # one in the legend
    assert len(page.of("polygon")) == 1 + 1


def test_many_large_pictures_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve of noise, with twelve blocks of 196 patches that nothing merged: the worst."""
    random = np.random.default_rng(0)
    saw = random.integers(0, 256, (224, 224, 3), np.uint8)
    places = np.arange(1, 197)
    blocks = tuple(Owned(block, (14, 14), places, places, 197, 1) for block in range(12))
    hues = (np.full(196, -1),) * 12
    one = Course(HOSTILE, Path("m.onnx"), saw, blocks, hues)
    drawn: dict[int, list[str]] = {}

    def once(strip: Strip, side: int) -> list[str]:
        if side not in drawn:
            drawn[side] = encoded(strip, side)
        return drawn[side]

    encoded = pictures._encoded
    monkeypatch.setattr(pictures, "_encoded", once)
    shown = pictures.pictures([strips.of(one)] * 12, HOSTILE, HOSTILE).source
    assert len(shown) < 2_700_000
    page = Page(shown.encode())
    assert len(page.of("img")) == 12 * 13
    assert {image["alt"].count(SHOWN) for image in page.of("img")} == {1}
    assert [one["value"] for one in page.of("input")] == ["7"] * 13
    assert min(drawn) >= 128


def test_thresholds_of_each_kind_have_their_own_scale() -> None:
    """Those of pruning are a hundredth of those of merging."""
    found = {"merge": [(0, 0.9), (1, 0.95)], "prune": [(0, 0.006), (1, 0.007), (3, 0.0065)]}
    page = Page(charts.thresholds(found).source.encode())
    lines = [one["points"].split() for one in page.of("polyline")]
    assert [len(points) for points in lines] == [2, 3]
    for points in lines:
        downs = [float(point.split(",")[1]) for point in points]
        assert max(downs) - min(downs) > 0.5 * (axes.HEIGHT - axes.TOP - axes.BOTTOM)

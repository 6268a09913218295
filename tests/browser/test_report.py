"""The page of `ltmp report` in a browser: its sliders, who can use it, paper, and hostile names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

import ltmp_export
from ltmp_export.checkpoint.load import Checkpoint
from tests.makers.browsing import Watched

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HOSTILE = "<img src=x onerror=alert(1)>\"'&<script>alert(2)<"
LONG = "W" * 180
BLOCKS = 3
PAPER = (680, 1009)  # pixels of A4 within its margins of 15 mm


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, shallow_digits: Callable[[str], Checkpoint]
) -> Path:
    """All parts but times, of a file and images with hostile and with long names."""
    place = tmp_path_factory.mktemp("page")
    checkpoint = shallow_digits("ltmp")
    ltmp_export.export(checkpoint, place / "m.onnx", check=False)
    model = onnx.load(place / "m.onnx")
    model.metadata_props.add(key=HOSTILE, value=f"{HOSTILE} {LONG}")
    onnx.save(model, place / f"{HOSTILE}.onnx")
    (place / "photos").mkdir()
    random = np.random.default_rng(0)
    for name in (HOSTILE, LONG):
        few = random.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(few).resize((32, 32)).save(place / f"photos/{name}.png")
    ltmp_export.report(
        place / f"{HOSTILE}.onnx", checkpoint, place / "report.html", images=place / "photos",
        samples=2, threads=1,
    )  # fmt: skip
    return place / "report.html"


def shown(figure: Locator) -> tuple[str, str, str]:
    """What a reader sees of an image: the slider's words, the picture, the lines under it."""
    (frame,) = (one for one in figure.locator(".frames > li").all() if one.is_visible())
    picture = frame.locator("img").get_attribute("src")
    lines = " ".join(frame.locator("> p").all_inner_texts())
    return figure.locator("output").inner_text(), picture or "", lines


def test_sliders_by_keyboard(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    first, second = page.locator(".course").all()
    before, other = shown(first), shown(second)
    assert re.fullmatch(r"block 1: \d+ tokens", before[0])
    assert "This block merged" in before[2]
    assert "So far: " in before[2]
    first.locator("input").focus()
    page.keyboard.press("ArrowRight")
    after = shown(first)
    assert after[0].startswith("block 2: ")
    assert after[1] != before[1]
    assert shown(second) == other
    assert first.locator("input").get_attribute("aria-valuetext") == after[0]
    page.keyboard.press("Home")
    assert shown(first)[0] == "what the model saw"
    page.locator("#all-blocks").focus()
    page.keyboard.press("End")
    assert page.locator("#all-told").inner_text() == f"block {BLOCKS - 1}"
    assert [shown(one)[0].split(":")[0] for one in (first, second)] == [f"block {BLOCKS - 1}"] * 2


def test_sliders_by_mouse_and_which_patches_merged(watched: Watched, report: Path) -> None:
    """What a reader unfolded at one block stays unfolded at the next."""
    page = watched.open(report)
    figure = page.locator(".course").first
    figure.locator("summary >> visible=true").click()
    (unfolded,) = (one for one in figure.locator("details").all() if one.is_visible())
    assert re.search(r"merged, [a-z ]+: row \d column", unfolded.inner_text())
    slider = figure.locator("input")
    box = slider.bounding_box()
    assert box is not None
    slider.click(position={"x": box["width"] - 4, "y": box["height"] / 2})
    assert shown(figure)[0].startswith(f"block {BLOCKS - 1}: ")
    assert figure.locator("details li >> visible=true").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(
    watched: Watched, report: Path, axe: Callable[[Page], list[str]], scheme: str
) -> None:
    page = watched.open(report, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    for summary in page.locator("summary >> visible=true").all():
        summary.click()
    assert axe(page) == []


def test_without_a_script_all_blocks_stand_side_by_side(watched: Watched, report: Path) -> None:
    page = watched.open(report, java_script_enabled=False)
    assert page.locator(".frames > li >> visible=true").count() == 2 * (BLOCKS + 1)
    assert page.locator(".frames .place >> visible=true").count() == 2 * (BLOCKS + 1)
    assert page.locator("input >> visible=true").count() == 0


def test_nothing_sticks_out_of_narrow_and_wide_windows(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    for width in (360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.evaluate(
            "[...document.querySelectorAll('.course, .course img, .frames p')]"
            ".map((one) => one.getBoundingClientRect().right)"
        )
        assert max(sizes) <= width


def test_on_paper_nothing_is_cut(watched: Watched, report: Path) -> None:
    page = watched.open(report, viewport=dict(zip(("width", "height"), PAPER, strict=True)))
    sheet = page.pdf(prefer_css_page_size=True)
    assert {box.split()[2:] == [b"594.95996", b"841.91998"] for box in boxes(sheet)} == {True}
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER[0]
    assert page.locator(".frames > li >> visible=true").count() == 2 * (BLOCKS + 1)
    assert page.locator("input >> visible=true").count() == 0
    whole = page.evaluate(
        "[...document.querySelectorAll('.course, .chart, table')].map((one) => "
        "[one.getBoundingClientRect().right, one.getBoundingClientRect().height, "
        "getComputedStyle(one).breakInside, one.tagName])"
    )
    assert {kind for *_, kind in whole} == {"FIGURE", "svg", "TABLE"}
    for right, height, inside, kind in whole:
        assert right <= PAPER[0]
        assert kind == "TABLE" or (height < PAPER[1] / 3 and inside == "avoid")


def boxes(sheet: bytes) -> list[bytes]:
    """Sizes of the pages of a PDF."""
    return re.findall(rb"/MediaBox \[(.*?)\]", sheet)


def test_hostile_names_and_metadata_are_shown_as_text(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    assert page.title() == f"{HOSTILE}.onnx: report"
    assert page.locator("h1").inner_text() == page.title()
    assert page.locator("figcaption").first.inner_text() == f"{HOSTILE}.png"
    page.get_by_text("metadata, as the file has them").click()
    assert page.get_by_role("rowheader", name=HOSTILE, exact=True).is_visible()
    assert page.locator("img:not([src^='data:image/'])").count() == 0
    assert page.locator("script").count() == 1
    assert page.locator("iframe, object, embed, link, [onerror]").count() == 0


def test_the_policy_stops_what_gets_in_all_the_same(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", "<img src=http://localhost:9/ onerror=1>");
          const script = document.createElement("script");
          script.textContent = "document.title = 'taken'";
          document.body.append(script);
        }"""
    )
    page.wait_for_function("document.images[document.images.length - 1].complete")
    assert page.title() != "taken"
    refused = list(watched.errors)
    watched.errors.clear()
    watched.requests.clear()  # as they were asked for, before they were refused
    assert {word for word in ("img-src", "script-src") if word in " ".join(refused)} == {
        "img-src", "script-src",
    }  # fmt: skip

"""What watches pages sees what they do: else no test with it would mean anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import missing
from tests.makers.browsing import Watched

if TYPE_CHECKING:
    from playwright.sync_api import Page

BAD = """<!DOCTYPE html><html><title>bad</title><img src="http://localhost:9/a.png">
<script>console.error("told"); alert("asked"); throw new Error("raised");</script>"""


def test_errors_and_requests_are_seen(
    watched: Watched, axe: Callable[[Page], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "bad page.html").write_text(BAD)
    page = watched.open(tmp_path / "bad page.html")
    assert {line.split(":")[0] for line in axe(page)} >= {"image-alt", "html-has-lang"}
    page.wait_for_load_state("networkidle")
    errors, requests = list(watched.errors), list(watched.requests)
    watched.errors.clear()
    watched.requests.clear()
    assert {"told", "dialog: asked"} < set(errors)
    assert any(line.startswith("uncaught: ") and "raised" in line for line in errors)
    assert requests == ["http://localhost:9/a.png"]


@pytest.mark.parametrize(
    ("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_what_is_missing_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("LTMP_REQUIRE_BROWSER", required)
    with pytest.raises(outcome, match="no browser"):
        missing("there is no browser")

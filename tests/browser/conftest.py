"""A browser for the tests that need one, and what they measure pages with.

`.ci/run` sets `LTMP_REQUIRE_BROWSER=1`: there what is missing is a failure. Elsewhere the tests
are skipped, with the reason.
"""

from __future__ import annotations

import importlib
import importlib.resources
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.makers.browsing import Watched, violations

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def missing(what: str) -> NoReturn:
    """Skip; fail where these tests must run."""
    if os.environ.get("LTMP_REQUIRE_BROWSER") == "1":
        pytest.fail(f"LTMP_REQUIRE_BROWSER=1, but {what}", pytrace=False)
    pytest.skip(what)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"there is no Python package {name.split('.')[0]}; pip install '.[test]'")


# Not for the whole session: the loop that playwright leaves running is in the way of others.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium, headless, of a fresh profile."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing(f"there is none of {', '.join(PROGRAMS)} on the path")
    with _module("playwright.sync_api").sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """Opens pages; in the end, none had an error and none asked anybody for anything."""
    pages = Watched(browser)
    yield pages
    pages.close()
    assert pages.errors == []
    assert pages.requests == []


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """What of a page people with a disability cannot use, by the rules of axe-core; [] if none."""
    source = importlib.resources.files(_module("axe_playwright_python")) / "axe.min.js"
    script = source.read_text(encoding="utf-8")
    return lambda page: violations(page, script)


@pytest.fixture(scope="session")
def onnxruntime_web() -> Path:
    """The folder `dist` of the npm package onnxruntime-web, see CONTRIBUTING."""
    given = os.environ.get("LTMP_ONNXRUNTIME_WEB")
    if not given:
        missing("LTMP_ONNXRUNTIME_WEB does not name the folder dist of onnxruntime-web")
    folder = Path(given)
    if not any(folder.glob("ort*.wasm")):
        missing(f"LTMP_ONNXRUNTIME_WEB is {folder}, which has no ort*.wasm")
    return folder

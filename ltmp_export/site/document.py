"""The page's HTML: what is known when the site is made, and the places that its scripts fill."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from ltmp_export.drawing import words
from ltmp_export.reports.page.elements import Html, element, joined
from ltmp_export.reports.page.tables import table
from ltmp_export.site.onnxruntime_web import WASM, WEBGPU, Runtime

STYLE, SCRIPT = "site.css", "page.js"
_WAITING = (
    "Nothing has run yet. If this line stays, the page was opened from a disk, where browsers run "
    "nothing, or scripts are off: put the folder on any web server, for instance with "
    "python -m http.server -d FOLDER."
)
_PROVIDERS = ((WASM, "wasm (the processor)"), (WEBGPU, "WebGPU"))


def document(
    title: str,
    told: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    runtime: Runtime,
    undrawn: str | None = None,
) -> bytes:
    """The file, whole.

    Args:
        title: The model's name.
        told: What it is.
        facts: Names and values of what else is known.
        notes: What was assumed, and what to know.
        runtime: What models run in.
        undrawn: Why there are no pictures of tokens, instead of what is seen in them.
    """
    made = (
        f"{told}. Made by ltmp {version('ltmp')}. The model runs in this browser: pictures are not "
        "sent anywhere."
    )
    body = element(
        "body",
        element("header", element("h1", title), element("p", made, class_="told")),
        element("p", _WAITING, id="state", role="status", aria_live="polite"),
        element("noscript", element("p", "Scripts are off: nothing runs.", class_="verdict doubt")),
        element(
            "main",
            _pictures(undrawn or words.LEGEND),
            _parity(),
            _times(runtime),
            _facts(facts, notes),
        ),
    )
    page = element("html", _head(title, runtime), body, lang="en")
    return f"<!DOCTYPE html>\n{page.source}\n".encode()


def policy(runtime: Runtime) -> str:
    """What a browser may do with the page: load the site's own files, and its runtime."""
    own = "'self'" if runtime.host is None else f"'self' {runtime.host}"
    return (
        f"default-src 'none'; script-src {own} 'wasm-unsafe-eval'; connect-src {own}; "
        "style-src 'self'; img-src 'self' blob: data:; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'"
    )


def _head(title: str, runtime: Runtime) -> Html:
    scripts = (
        element(
            "script",
            type="module",
            src=script.url,
            integrity=script.integrity,
            crossorigin="anonymous",
        )
        for script, _ in runtime.files.values()
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy(runtime)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href=STYLE),
        *scripts,
        element("script", type="module", src=SCRIPT),
    )


def _section(name: str, title: str, *content: Html) -> Html:
    heading = element("h2", title, id=f"{name}-heading")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-heading")


def _pictures(legend: str) -> Html:
    choose = element(
        "div",
        element("label", "Choose pictures (PNG, JPEG, BMP, WebP), or drop them on the page: ",
                for_="files"),
        element("input", type="file", id="files", multiple=True, disabled=True,
                accept="image/png,image/jpeg,image/bmp,image/webp"),
        element("p", "Or one of those that were recorded when this site was made:"),
        element("ul", id="recorded", class_="choices", aria_label="recorded images"),
        id="drop", class_="controls",
    )  # fmt: skip
    return _section(
        "pictures", "Pictures", choose, element("p", legend, class_="told"),
        element("div", id="cards", class_="courses"),
    )  # fmt: skip


def _parity() -> Html:
    waiting = element("p", "Not compared yet.")
    return _section(
        "same", "Does this browser compute the same?",
        element("div", waiting, id="parity", class_="verdict doubt", aria_live="polite"),
        element("div", id="prepared", aria_live="polite"),
        element("p", element("button", "Compare all recorded images", type="button", id="check",
                             disabled=True)),
    )  # fmt: skip


def _times(runtime: Runtime) -> Html:
    choices = (
        element(
            "label",
            element(
                "input",
                type="radio",
                name="provider",
                value=value,
                disabled=True,
                checked=value == WASM,
            ),
            f" {name} ",
        )
        for value, name in _PROVIDERS
        if value in runtime.files
    )
    return _section(
        "time", "Time",
        element("fieldset", element("legend", "Runs on"), *choices),
        element("p", "The reduced and the dense model of the same weights, in turns, on the images "
                "shown last, or on recorded ones; 12 seconds or more.", class_="told"),
        element("p", element("button", "Measure", type="button", id="measure", disabled=True)),
        element("ol", id="times", aria_live="polite"),
    )  # fmt: skip


def _facts(facts: Sequence[tuple[str, str]], notes: Sequence[str]) -> Html:
    listed = element("ul", *(element("li", note) for note in notes)) if notes else ""
    return _section(
        "facts", "What runs here", joined(table([], list(facts), "model", left=2), listed)
    )

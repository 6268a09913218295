"""Pages in a real browser, and what they did beside showing themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, WebError

SECONDS = 30.0  # for whatever a page is waited for, on a busy machine
OWN = ("data:", "blob:", "about:")  # no request leaves the browser


class Watched:
    """Opens pages, each in a profile of its own, and keeps what must not happen.

    Args:
        browser: A running one.

    Attributes:
        errors: What pages wrote to the console as errors, uncaught exceptions, and dialogs.
        requests: Addresses that pages asked for, other than files of their own server; of a page
            from a file, anything but the file.
    """

    def __init__(self, browser: Browser) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def open(self, where: str | Path, **options: Any) -> Page:
        """A page, loaded.

        Args:
            where: A file, or an address.
            options: Of playwright's `new_context`: `color_scheme`, `viewport`,
                `java_script_enabled`, ...
        """
        url = where.absolute().as_uri() if isinstance(where, Path) else where
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        context.set_default_timeout(1000 * SECONDS)
        context.on("console", self._console)
        context.on("weberror", self._raised)
        context.on("dialog", self._asked)
        context.on("request", lambda request: self._request(url, request.url))
        page = context.new_page()
        page.on("websocket", lambda socket: self._request(url, socket.url))
        page.goto(url)
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _raised(self, error: WebError) -> None:
        self.errors.append(f"uncaught: {error.error}")

    def _asked(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, page: str, asked: str) -> None:
        if not asked.startswith(OWN) and _origin(asked) != _origin(page):
            self.requests.append(asked)


def _origin(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    return (url.split("#")[0],) if parts.scheme == "file" else (parts.scheme, parts.netloc)


def violations(page: Page, script: str) -> list[str]:
    """Rules of accessibility that a page breaks, by axe-core, each with the elements.

    Args:
        page: Of any content security policy.
        script: The source of axe-core.
    """
    page.evaluate(script)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {', '.join(str(node['target']) for node in one['nodes'])}"
        for one in found["violations"]
    ]

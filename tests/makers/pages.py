"""Pages of HTML as tests see them: parsed, and held against what a validator would check."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser

from ltmp_export.reports.page.elements import VOID

# What stands in what, of what a page consists of.
INSIDE = {
    "li": {"ul", "ol"},
    "tr": {"thead", "tbody"},
    "td": {"tr"},
    "th": {"tr"},
    "thead": {"table"},
    "tbody": {"table"},
    "figcaption": {"figure"},
    "summary": {"details"},
    "desc": {"svg"},
    "meta": {"head"},
    "style": {"head"},
}
# A "p" ends where one of these begins: a browser would take them out of it.
NOT_IN_P = {"p", "div", "ul", "ol", "table", "section", "figure", "h1", "h2", "h3", "details"}


class Page(HTMLParser):
    """Elements, texts and attributes of a page, every element closed where it was opened."""

    def __init__(self, source: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(source.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"twice in {tag}"
        assert tag not in INSIDE or self.open[-1] in INSIDE[tag], f"{tag} in {self.open}"
        assert not (tag in NOT_IN_P and "p" in self.open), f"{tag} in {self.open}"
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]].append(data)
        else:
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.found if name == tag]

    def headings(self) -> list[str]:
        """Identifiers of the parts."""
        return [one["id"] for one in self.of("section")]


def require_valid(source: bytes) -> Page:
    """Parse a page, and check what a validator of HTML would check of it."""
    assert source.startswith(b"<!DOCTYPE html>\n<html")
    assert source.index(b"charset") < 1024
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", source)
    page = Page(source)
    identifiers = Counter(one["id"] for _, one in page.found if "id" in one)
    assert set(identifiers.values()) <= {1}
    for tag, given in page.found:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert name not in given or given[name] in identifiers, f"{tag} {name}"
        assert not given.get("href", "#").strip("#") or given["href"][1:] in identifiers
        assert not any(name.startswith("on") or name == "style" for name in given)
        assert tag != "img" or given["alt"]
        assert given.get("src", "data:image/").startswith("data:image/")
    labelled = {one["for"] for one in page.of("label")}
    assert all(one["id"] in labelled for one in page.of("input"))
    once = [tag for tag, _ in page.found if tag in ("h1", "main", "title")]
    assert once == ["title", "h1", "main", *("title" for _ in page.of("svg"))]
    return page


def require_policy(page: Page) -> None:
    """Check that a browser runs the page's own script and style and nothing else."""
    (policy,) = (one["content"] for one in page.of("meta") if "http-equiv" in one)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    for kind in ("script", "style"):
        allowed = rules.pop(f"{kind}-src")
        for content in page.inside[kind]:
            digest = hashlib.sha256(content.encode()).digest()
            assert allowed == f"'sha256-{base64.b64encode(digest).decode()}'"
        assert len(page.inside[kind]) == len(page.of(kind)) <= 1
    assert set(rules.values()) == {"'none'"}

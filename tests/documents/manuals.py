"""The manuals: the front page and the documents that stand beside the code they describe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FRONT = ROOT / "README.md"
PLACES = ("ltmp_export", "cli", ".github", "tests")
# What `.ci/run` runs: installing, the tests themselves, the linters.
ELSEWHERE = ("pip install", "pytest", "ruff")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]+\]\(([^)]+)\)")


def documents() -> list[Path]:
    """All documents of the repository, the front page first."""
    return [FRONT, *sorted(path for place in PLACES for path in (ROOT / place).rglob("*.md"))]


def name(document: Path) -> str:
    """Its path in the repository."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """What its fences of a language hold."""
    found = _FENCED.findall(document.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def commands(document: Path) -> list[str]:
    """Its command lines, without comments and without what `.ci/run` runs."""
    lines = "".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    plain = [line.split(" #")[0].strip() for line in lines]
    return [line for line in plain if line and not line.startswith(ELSEWHERE)]


def links(text: str) -> Iterator[str]:
    """Targets of links, outside of fences, that lead into the repository."""
    for target in _LINK.findall(_FENCED.sub("", text)):
        if not re.match(r"\w+:", target):
            yield target


def anchors(document: Path) -> set[str]:
    """What `#…` may name in it, as GitHub makes it of headings."""
    text = _FENCED.sub("", document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

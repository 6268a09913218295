"""HTML by elements: a string is text and is escaped, only `Html` is markup.

`element` is the one way to markup. Names of files, of images and of classes are anybody's: what is
no printable character is written out, with what turns the direction of writing, and lone
surrogates.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

VOID = {"img", "input", "meta", "br", "link"}


@dataclass(frozen=True)
class Html:
    """Markup, in which every text is escaped.

    Attributes:
        source: As it is written to the file.
    """

    source: str


Content = Html | str
Value = str | int | float | bool


def text(words: str) -> Html:
    """Words, as words."""
    return Html(html.escape(printable(words), quote=True))


def printable(words: str) -> str:
    """With everything but newlines written out that a page would not show as it is."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in words
    )


def joined(*parts: Content) -> Html:
    """Parts, one after the other."""
    return Html("".join(_source(part) for part in parts))


def element(name: str, /, *content: Content, **attributes: Value) -> Html:
    """An element of HTML or SVG.

    Args:
        name: Of this program, as names of attributes are; "-" in these is "_", and a "_" at the end
            is left out (`class_`).
        content: Strings are text.
        attributes: Strings are text; True stands without a value, False not at all.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    start = f"<{name}{written}>"
    if name in VOID:
        return Html(start)
    return Html(f"{start}{joined(*content).source}</{name}>")


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{text(shown).source}"'


def _source(part: Content) -> str:
    return part.source if isinstance(part, Html) else text(part).source

"""Names of the files that pictures are written to: from names of images, which may be anything."""

from __future__ import annotations

import re

SUFFIX = ".png"
_LONGEST = 80  # characters of a name


class Names:
    """Hands out names that are all different, also where a system takes a for A."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, image: str) -> str:
        """A name for an image, without the suffix: letters, digits and what stands between them."""
        plain = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", image)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:_LONGEST] or "picture"
        name, number = plain, 2
        while name.lower() in self._taken:
            name, number = f"{plain}-{number}", number + 1
        self._taken.add(name.lower())
        return name

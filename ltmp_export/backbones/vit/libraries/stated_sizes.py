"""Numbers that a configuration beside a file states: read, or refused, and held to the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ltmp_export.backbones.vit.libraries.parts import Part
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Size

_WHOLE = re.compile(r"[0-9]{1,9}")
_REAL = re.compile(r"[0-9]{0,9}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_EMBEDDING, _MLP = "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"
_POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Configuration:
    """A configuration, or the part of one that is of images.

    Attributes:
        told: What it says; a key that is null says nothing.
        file: Its name.
        source: Of which file, for messages.
        defaults: What it means where it says nothing.
    """

    told: Mapping[str, Any]
    file: str
    source: str
    defaults: Mapping[str, Any]

    def says(self, key: str) -> bool:
        """Whether it says something, and not only means it."""
        return self.told.get(key) is not None

    def value(self, key: str) -> Any:
        """What it says or means."""
        return self.told[key] if self.says(key) else self.defaults.get(key)

    def whole(self, key: str) -> int:
        """A number above 0; text is one where it is nothing but digits.

        Raises:
            InputError: It is none.
        """
        found = _whole(self.value(key))
        if found is None:
            self._refuse(key, "a whole number above 0")
        return found

    def epsilon(self, key: str) -> float:
        """A number between 0 and 1, likewise.

        Raises:
            InputError: It is none.
        """
        value = self.value(key)
        if isinstance(value, str) and _REAL.fullmatch(value):
            value = float(value)
        if type(value) in (int, float) and 0 < value < 1:
            return float(value)
        self._refuse(key, "a number between 0 and 1")

    def sides(self, key: str) -> Size:
        """(height, width), of both or of one number for both.

        Raises:
            InputError: They are none.
        """
        value = self.value(key)
        pair = list(value) if isinstance(value, (list, tuple)) else [value, value]
        found = [side for side in map(_whole, pair) if side is not None]
        if len(pair) != 2 or len(found) != 2:
            self._refuse(key, "a whole number above 0, or two")
        return found[0], found[1]

    def text(self, key: str) -> str:
        """A name.

        Raises:
            InputError: It is none.
        """
        value = self.value(key)
        if not isinstance(value, str) or not value:
            self._refuse(key, "a name")
        return value

    def place(self, key: str) -> str:
        """Where it says something, for a person."""
        return f"{self.file}: {key}{'' if self.says(key) else ', default'}"

    def _refuse(self, key: str, expected: str) -> NoReturn:
        raise InputError(
            f"{self.source}: {self.file} beside it says {key} {self.value(key)!r:.40}; expected "
            f"{expected}; mend it, or give the file its own folder"
        )

    def require(self, key: str, stated: Any, own: Any) -> None:
        """Check that something is as the weights have it.

        Raises:
            InputError: The configuration is of another model.
        """
        if stated != own:
            shown, has = (
                "x".join(map(str, one)) if isinstance(one, tuple) else one for one in (stated, own)
            )
            default = "" if self.says(key) else ", its default"
            raise InputError(
                f"{self.source}: {self.file} beside it says {key} {shown}{default}, its weights "
                f"have {has}; put the configuration of this model there, or give the file its own "
                "folder"
            )


def _whole(value: Any) -> int | None:
    """A whole number above 0, if it is one."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else None


@dataclass(frozen=True)
class Keys:
    """What a library calls the sizes of a model; an empty name where it has none."""

    width: str
    depth: str
    patch: str = "patch_size"
    image: str = "image_size"
    mlp: str = ""
    channels: str = ""


def require_same(config: Configuration, keys: Keys, parts: Mapping[str, Part]) -> None:
    """Check that a configuration is of a model of such weights.

    Args:
        config: Of the model.
        keys: What its library calls sizes.
        parts: timm's tensors, their positions with those of the tokens before the patches.

    Raises:
        InputError: It is of another; what contradicts is named, as both have it.
    """
    for key, own in _own(keys, parts):
        if key:
            stated = config.sides(key) if isinstance(own, tuple) else config.whole(key)
            config.require(key, stated, own)
    _require_images(config, keys, parts)


def _own(keys: Keys, parts: Mapping[str, Part]) -> Iterator[tuple[str, int | Size]]:
    """Sizes of the weights, as far as they have the dimensions of these, by the library's words."""
    yield keys.depth, len({name.split(".")[1] for name in parts if name.startswith("blocks.")})
    embedding = parts[_EMBEDDING].shape if _EMBEDDING in parts else ()
    if len(embedding) == 4:
        yield keys.width, embedding[0]
        yield keys.channels, embedding[1]
        yield keys.patch, (embedding[2], embedding[3])
    first = parts[_MLP].shape if _MLP in parts else ()
    if len(first) == 2:
        yield keys.mlp, first[0]


def _require_images(config: Configuration, keys: Keys, parts: Mapping[str, Part]) -> None:
    """Check that the positions are those of images of the size that is stated.

    Raises:
        InputError: They are of others.
    """
    embedding = parts[_EMBEDDING].shape if _EMBEDDING in parts else ()
    positions = parts[_POSITIONS].shape if _POSITIONS in parts else ()
    if len(embedding) != 4 or 0 in embedding[2:] or len(positions) not in (2, 3):
        return
    (height, width), rows = config.sides(keys.image), positions[-2]
    patches = (height // embedding[2]) * (width // embedding[3])
    tokens = ("cls_token", "dist_token", "reg_token")
    before = sum(parts[token].shape[-2] if len(parts[token].shape) > 1 else 1
                 for token in tokens if token in parts)  # fmt: skip
    if not 0 <= rows - patches <= before:
        config.require(
            keys.image,
            f"{height}x{width} ({patches} patches of {embedding[2]}x{embedding[3]})",
            f"positions for {rows} tokens",
        )

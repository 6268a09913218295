"""What `ltmp show` drew, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Model:
    """A file that images went through.

    Attributes:
        path: The file.
        description: Its name, family, architecture and precision.
        grid: Rows and columns of its patches.
        prepared: What became of images before it saw them.
    """

    path: Path
    description: str
    grid: tuple[int, int]
    prepared: str


@dataclass(frozen=True)
class Shown:
    """One image, as it was drawn.

    Attributes:
        image: Its name.
        files: Names of its pictures in the folder.
        alt: What is seen there, in words, for each model.
        courses: What became of its patches, for each model, in plain values.
    """

    image: str
    files: tuple[str, ...]
    alt: tuple[str, ...]
    courses: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ShowReport:
    """What was drawn.

    Attributes:
        output: The folder.
        models: One, or the two side by side.
        images: Where the images come from.
        blocks: Those shown.
        pictures: In the order of the images.
        grids: Names of the pictures of all.
        notes: What was assumed.
        warnings: What else to know.
    """

    output: Path
    models: tuple[Model, ...]
    images: str
    blocks: tuple[int, ...]
    pictures: tuple[Shown, ...]
    grids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A document for scripts, see `schemas/show.schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "show",
            "output": str(self.output),
            "models": [
                {
                    "model": str(one.path),
                    "description": one.description,
                    "grid": list(one.grid),
                    "prepared": one.prepared,
                }
                for one in self.models
            ],
            "images": self.images,
            "blocks": list(self.blocks),
            "pictures": [
                {"image": one.image, "files": list(one.files), "courses": list(one.courses)}
                for one in self.pictures
            ],
            "grids": list(self.grids),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

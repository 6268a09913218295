"""Which models of other libraries are taken: a table of `checkpoint/README.md`.

    python -m tests.documents.libraries      prints the table, as the manual must have it

Each row is a fixture with what the library itself computed, see `tests/makers/library_outputs.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.conftest import FIXTURES


@dataclass(frozen=True)
class Row:
    """A model that is taken.

    Attributes:
        fixture: The file with what the library computed.
        model: As a person says it.
        says: A line of what is told of it.
    """

    fixture: str
    model: str
    says: str

    def recorded(self) -> Mapping[str, Any]:
        """Versions, configuration, shapes of weights by their names, and outputs."""
        path = FIXTURES / "libraries" / f"{self.fixture}.json"
        found: Mapping[str, Any] = json.loads(path.read_text())
        return found


_VIT, _DINO = (
    "names of Hugging Face's ViT: taken as timm's",
    "names of Hugging Face's Dinov2: taken",
)
_CLIP, _SIGLIP = "names of Hugging Face's CLIP: taken", "names of Hugging Face's SigLIP: taken"
_PROJECTS = "its head projects to CLIP's embeddings, not to classes"

ROWS = (
    Row("ViTForImageClassification", "`ViTForImageClassification`", _VIT),
    Row("ViTForImageClassification_state_dict", "its `state_dict()` in transformers 5", _VIT),
    Row("DeiTForImageClassification", "`DeiTForImageClassification`",
        "its distillation token attends, and nothing reads it: a register"),
    Row("DeiTForImageClassificationWithTeacher", "`DeiTForImageClassificationWithTeacher`", _VIT),
    Row("CLIPVisionModelWithProjection", "`CLIPVisionModelWithProjection`", _PROJECTS),
    Row("CLIPModel", "`CLIPModel`, its image half", "its half for texts"),
    Row("SiglipForImageClassification", "`SiglipForImageClassification`",
        "left out: its attention pooling, which its classifier does not see"),
    Row("open_clip_own", "open_clip's own transformer", _PROJECTS),
    Row("open_clip_own_average", "the same, normalising the mean", "tensors for texts and"),
    Row("open_clip_trunk", "open_clip, a model of timm's as `visual.trunk`", _PROJECTS),
)  # fmt: skip


def table() -> str:
    """The manual's table."""
    lines = ["| model | compared | with | says |", "|---|---|---|---|"]
    for row in ROWS:
        recorded = row.recorded()
        library, version = next(iter(recorded["versions"].items()))
        compared = ", ".join(f"`{name}`" for name in recorded["outputs"])
        lines.append(f"| {row.model} | {compared} | {library} {version} | `{row.says}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())

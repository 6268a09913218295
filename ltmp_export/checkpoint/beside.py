"""Configurations that lie beside a file: Hugging Face's and open_clip's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip_config
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import CONFIG

# The names that files of a model have in its folder, the preferred first.
FILES = (
    *("model.safetensors", "pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
PROCESSOR = "preprocessor_config.json"
_MOST = 2**20  # bytes of a configuration


@dataclass(frozen=True)
class Beside:
    """What lies beside a file.

    Attributes:
        config: Of the model, Hugging Face's; empty where there is none.
        open_clip: Of the model, open_clip's, likewise.
        processor: How Hugging Face prepares images for it.
        belongs: Whether the file's name is one that a model's folder has: others may lie beside
            configurations of something else.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    open_clip: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    belongs: bool = False

    @property
    def of_timm(self) -> Mapping[str, Any]:
        """The configuration, if it is timm's."""
        told = "architecture" in self.config or "pretrained_cfg" in self.config
        return self.config if self.belongs and told else {}

    @property
    def name(self) -> str:
        """The class of transformers that the configuration names, or nothing."""
        listed = self.config.get("architectures")
        first = listed[0] if isinstance(listed, list) and listed else None
        kind = self.config.get("model_type")
        return next((one for one in (first, kind) if isinstance(one, str)), "")


def beside(path: Path, foreign: bool) -> Beside:
    """Read what lies beside a file.

    Args:
        path: The file.
        foreign: Whether it has another library's names; if not, what lies beside a file of any
            name need not be of it.

    Raises:
        InputError: A configuration is damaged.
    """
    folder, belongs = path.parent, path.name in FILES
    if not (foreign or belongs):
        return Beside()
    config, open_clip, processor = (
        _object(folder / name) for name in (CONFIG, open_clip_config.FILE, PROCESSOR)
    )
    return Beside(config, open_clip, processor, belongs)


def _object(file: Path) -> dict[str, Any]:
    """A JSON object of a few kB; empty where there is no file."""
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > _MOST:
            raise InputError(f"{file} has more than {_MOST >> 20} MiB; expected a few kB")
        text = file.read_text(encoding="utf-8")
        json.dumps(found := json.loads(text), ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{file} is damaged ({type(err).__name__}); mend or remove it") from err
    if not isinstance(found, dict):
        raise InputError(f"{file} is a JSON {type(found).__name__}; expected an object")
    return found

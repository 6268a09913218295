"""What timm offers, and whether it would be taken: told by its configurations alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm

from ltmp_export.backbones import chosen, offered
from ltmp_export.checkpoint import hub
from ltmp_export.images import preprocessing
from ltmp_export.plan.work import dense_macs
from ltmp_export.progress import Progress, silent
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices

SCHEMA_VERSION = 1


def models(pattern: str = "*", *, progress: Progress = silent) -> dict[str, Any]:
    """Timm's networks that are taken and those near them, in groups of like architectures.

    Every architecture is built without numbers, which takes a tenth of a second each.

    Args:
        pattern: Only names, or names with tags, that match, as file names are matched.
        progress: Called with a few words for every architecture.

    Returns:
        Plain values: `groups`, each with its `names`, pretrained `tags`, whether it is `taken`,
        as which `kind`, and what is `missing`.

    Raises:
        InputError: No name matches.
    """
    found = offered.groups(pattern, progress)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "models",
        "timm": timm.__version__,
        "pattern": pattern,
        "tags": sum(len(group.tags) for group in found),
        "tags_taken": sum(len(group.tags) for group in found if group.taken),
        "groups": [asdict(group) | {"taken": group.taken} for group in found],
    }


def described(source: str | Path) -> dict[str, Any]:
    """What `timm:NAME` is, and whether it would be taken, as plain values; nothing is downloaded.

    Raises:
        InputError: timm has no such model, or cannot build it.
    """
    named = timm_names.require(hub.name_in(source))
    found, config = offered.survey(named.name), named.config
    facts = {
        "schema_version": SCHEMA_VERSION,
        "kind": "timm model",
        "path": str(source),
        "name": named.name,
        "network": type(found.model).__name__,
        "weights": None if config is None else config.hf_hub_id or config.url or None,
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "taken": found.geometry is not None,
        "missing": list(found.missing),
        "notes": [named.note] if named.note else [],
    }
    if found.geometry is None:
        return facts
    prepared = preprocessing.resolve(Choices(), {}, found.geometry, named)
    return {
        **facts,
        **chosen.to_facts(found.geometry),
        "outputs": ["logits" if found.geometry.classes else "features"],
        "dense_gmacs": dense_macs(found.geometry) / 1e9,
        "preprocessing": asdict(prepared.preprocessing),
        "warnings": list(prepared.warnings),
    }

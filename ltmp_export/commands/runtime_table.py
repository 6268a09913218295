"""Which runtimes are here, and what is known of files in all that were tried."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ltmp_export.runtimes import installed, listed, matrix

SCHEMA_VERSION = 1


def runtime_table() -> dict[str, Any]:
    """What `ltmp check --runtime` and `bench --runtime` can take here, and what runs where.

    Nothing of a runtime is imported.

    Returns:
        Plain values: `runtimes`, each with its `name`, the installed `version` or None, and the
        `extra` that installs it ("" of a dependency); and the `matrix` of what was seen, see
        `runtimes.matrix`: when, in which versions, and each file's `cells`.
    """
    seen = matrix.read()
    here = [
        {"name": name, "called": one.called, "version": installed.version(name), "extra": one.extra}
        for name, one in listed.runtimes().items()
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "runtimes",
        "runtimes": here,
        "matrix": asdict(seen),
    }

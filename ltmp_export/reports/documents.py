"""Documents for scripts. What they hold comes from the reports' own `to_json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(document: Mapping[str, Any]) -> str:
    """A JSON text that strict parsers read: no NaN, no infinity."""
    return json.dumps(document, indent=2, allow_nan=False, default=list) + "\n"

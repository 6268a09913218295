"""A file of counts that is stated with a model, DiffRate's `compression_rate.json`."""

from __future__ import annotations

import json
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import disk

MOST = 2**20  # bytes; the published one has 10,000


def read(path: Path, budget: str | None) -> str:
    """The file as text: of each model the budget alone that is asked for, where it is there.

    Args:
        path: The file.
        budget: What is asked for, see `Choices.budget`.

    Raises:
        InputError: It is none.
    """
    disk.require_file(path, "a JSON file of counts, like DiffRate's compression_rate.json")
    expected = "expected JSON of model: budget: counts, like DiffRate's compression_rate.json"
    try:
        if path.stat().st_size > MOST:
            raise InputError(f"{path} has more than {MOST} bytes; {expected}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is no JSON ({err!s:.100}); {expected}") from err
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); {expected}") from err
    if type(found) is not dict or not all(type(one) is dict for one in found.values()):
        raise InputError(f"{path} holds something else; {expected}")
    name = (budget or "").rpartition(":")[2]
    asked = {model: {name: rates[name]} for model, rates in found.items() if name in rates}
    return json.dumps(asked or found, separators=(",", ":"))

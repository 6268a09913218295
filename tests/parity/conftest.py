"""The images that files are compared on."""

from __future__ import annotations

import pytest

from ltmp_export.images import inputs


@pytest.fixture(scope="session")
def images() -> inputs.Images:
    """Six of the digits."""
    return inputs.embedded_digits().select(6)

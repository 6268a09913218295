"""Settings of a run that are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ltmp_export.errors import InputError
from ltmp_export.images.labelled import Arrays
from tests.makers.trainers import SETTINGS, data, trainer


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"reduction_target": 0.0}, "a reduction target of 0; expected the share"),
            ({"reduction_target": 60.0}, "a reduction target of 60; expected .* at most 1"),
            ({"epochs": 0}, "epochs is 0; expected at least 1"),
            ({"batch_size": 0}, "batch size is 0"),
            ({"accumulate": 0}, "accumulate is 0"),
            ({"lr": {"merge": -1.0}}, "learning rate of merge is -1"),
            ({"lr": {"prune": math.nan}}, "learning rate of prune is nan"),
            ({"start": {"merge": 1.5}}, r"merge starts at 1.5; a threshold lies in \[0, 1\]"),
            ({"tau": 0.0}, "tau is 0"),
            ({"label_smoothing": 1.0}, "label smoothing is 1"),
            ({"train_all": -1.0}, "learning rate is -1"),
            ({"seed": -1}, "seed is -1"),
            ({"form": "other"}, "no such form"),
        ],
    )
    def test_refused(self, change: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            replace(SETTINGS, **change)

    def test_float16_that_never_gives_a_gradient_is_refused(self) -> None:
        """GradScaler passes over such steps: the run would end as if it had learned."""
        broken = data()
        reader = Arrays(np.full_like(broken.reader.pixels, np.inf))  # type: ignore[attr-defined]
        settings = replace(SETTINGS, precision="float16", epochs=20)
        run = trainer(settings, images=replace(broken, reader=reader))
        with pytest.raises(InputError, match="float16 gave no finite gradient at any scale up to"):
            list(run.run())

"""What one step of a run is given, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """Images that one process takes through the model at once, and their classes."""

    images: Tensor
    labels: Tensor


class Record(NamedTuple):
    """One step, over all its images.

    Attributes:
        epoch: Its epoch, from 0.
        step: Its number, from 0, over all epochs.
        loss: All of its terms together.
        cross_entropy: With label smoothing.
        accuracy: Share of the images with the right top-1.
        mac_ratio: Share of the multiply-accumulates left: where thresholds learn, of the blocks',
            see `budget`; under a static plan of all.
        rate: What the schedule multiplied the learning rates by.
        thresholds: After the step, per kind one for each block; nothing under a static plan.
        terms: Of the loss, beside cross-entropy and budget, by name.
    """

    epoch: int
    step: int
    loss: float
    cross_entropy: float
    accuracy: float
    mac_ratio: float
    rate: float
    thresholds: Mapping[str, list[float]]
    terms: Mapping[str, float] = MappingProxyType({})

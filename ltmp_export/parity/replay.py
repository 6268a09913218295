"""One image after the other through the file and through the reference that follows it.

Every image is run alone, in batches, and in the same batches reversed. The reference, in float64,
takes the decisions the file took. One batch of each run is kept at a time, and of a finished image
only what judging needs, so that memory does not grow with the tensors of many images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ltmp_export.backbones.trace import Trace
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError
from ltmp_export.images.inputs import Images
from ltmp_export.parity import outputs, taps
from ltmp_export.parity.computed import Computed, Here, Runner
from ltmp_export.parity.differences import Deviation, alike, deviation, is_finite, rounding
from ltmp_export.parity.lower_precision import Distance, distance
from ltmp_export.parity.outputs import Given
from ltmp_export.parity.outwards import Outwards
from ltmp_export.parity.report import batch_name
from ltmp_export.parity.runs import ALONE, Run
from ltmp_export.parity.stated import model_of
from ltmp_export.parity.taps import Choices, Record
from ltmp_export.plan.geometry import Shape
from ltmp_export.plan.linears import rounded
from ltmp_export.precision import eager
from ltmp_export.precision.formats import FP16, FP32, Precision
from ltmp_export.reference import Reference
from ltmp_export.steps import decided


@dataclass(frozen=True)
class Observation:
    """One image in one run, on both sides.

    Attributes:
        number: Index of the image.
        run: Batch size and order.
        given: What the file as it is gives, by the names of `plan.outputs`.
        stated: [depth] of its output token_counts, or None without one.
        overflow: [depth] of its output overflow, or None without one.
        tapped: What the copy gives whose inner tensors are read.
        counts: Tokens after each block in the file.
        choices: Its decisions, as far as they could be read.
        broken: Why they could not be read further, else "".
        deviation: How far the file is from the reference under the same decisions.
        rounding: How far PyTorch in float32 is from it, under the same decisions.
        comparable: Whether the reference gives numbers, and no NaN, to compare with.
        replay_counts: Tokens after each block in that reference.
        expected_counts: The same in the reference that decides by itself.
        expected: What the reference gives that decides by itself.
        distance: From the float32 model, for an image that is run alone in lower precision.
        inside: Whether the file's inner tensors were read. If not, its decisions are those of the
            reference that its outputs fit best, and of its inner numbers nothing is known.
        unseen: Which decision may have fallen either way, where that cannot be read, else "".
    """

    number: int
    run: Run
    given: Given
    stated: NDArray[np.int64] | None
    overflow: NDArray[np.int64] | None
    tapped: Given
    counts: tuple[int, ...]
    choices: Choices
    broken: str
    deviation: Deviation
    rounding: Deviation
    comparable: bool
    replay_counts: tuple[int, ...]
    expected_counts: tuple[int, ...]
    expected: Given
    distance: Distance | None
    inside: bool = True
    unseen: str = ""


class Observer:
    """Runs a file and the reference of its checkpoint.

    Args:
        model: The exported model.
        checkpoint: What it should be the model of.
        images: What to run.
        passes: How to run them.
        precision: Of the file.
        beside: Weights that the model only refers to.
        computed: What runs it; onnxruntime on the CPU by default.

    Raises:
        InputError: The file lacks a named tensor.
        ExportError: Its runtime does not load or run it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        checkpoint: Checkpoint,
        images: Images,
        passes: Sequence[Run],
        precision: Precision,
        beside: Mapping[str, NDArray[Any]] | None = None,
        computed: Computed | None = None,
    ) -> None:
        self.images = images
        self.passes = passes
        self.plan = checkpoint.plan
        self.geometry = checkpoint.geometry
        self.fresh = decided.fresh(checkpoint.geometry, checkpoint.plan)
        self.precision = precision
        stated = single = checkpoint.model
        if precision.kind != FP32:
            stated = single = model_of(model, checkpoint.model, precision)
        if precision.kind == FP16:
            single = eager.halved(stated, precision)
        self.names = outputs.names(model)
        self.reference = Reference(stated, checkpoint.plan, torch.float64, self.names)
        self.single = Reference(single, checkpoint.plan, outputs=self.names)
        self.exact = self.reference
        if precision.kind != FP32:
            self.exact = Reference(checkpoint.model, checkpoint.plan, torch.float64, self.names)
        computed = computed or Here(model, beside)
        self._untapped = _outputs(model, checkpoint, images, passes, computed)
        wanted = taps.names(checkpoint.plan, precision, rounded(checkpoint.geometry))
        self._outwards = Outwards(self.reference, self.single, self.names)
        self._current: dict[Run, tuple[int, Mapping[str, NDArray[Any]]]] = {}
        self._inner = self._tried(computed.tapped(wanted), computed)

    def _tried(self, inner: Runner | None, computed: Computed) -> Runner | None:
        """What gives inner tensors, if it does so of the first batch of each run."""
        if inner is None:
            return None
        for run in self.passes:
            which, index, _ = run.place(0, len(self.images))
            try:
                self._current[run] = which, inner.run(run, which, self.images.pixels[index])
            except ExportError as err:
                if not computed.keeps(err):
                    raise
                return None
        return inner

    def observe(self, number: int) -> Iterator[Observation]:
        """One image in every run."""
        replays: dict[bytes, Trace] = {}  # the same decisions are replayed once
        roundings: dict[bytes, Deviation] = {}
        deviations: dict[bytes, tuple[Record, Given, Deviation]] = {}  # what is alike is so as well
        own: Trace | None = None
        pixels = self.images.pixels[number]
        for run in self.passes:
            record = self.record(run, number)
            digest = taps.digest(record.choices(), record.taken)
            if digest not in replays:
                replays[digest] = replay = self.replay(number, record)
                single = self.single.run(torch.from_numpy(pixels), record.choices(), record.taken)
                roundings[digest] = rounding(single, record.choices(), replay, self.names)
            replay = replays[digest]
            found_there = self._untapped[run]
            given = {name: found_there[name][number] for name in self.names}
            before, its_own, found = deviations.get(digest, (None, None, None))
            if found is None or not alike(before, record) or not alike(its_own, given):
                # Where float32 products are rounded, the file as it is may take other integers.
                found = deviation(record, replay, record.given if self.precision.qdq else given)
                deviations[digest] = record, given, found
            expected = replay
            if found.flips() or record.broken:
                expected = own = own or self.reference.run(torch.from_numpy(pixels))
            yield Observation(
                number=number,
                run=run,
                given=given,
                stated=_of(found_there, "token_counts", number),
                overflow=_of(found_there, "overflow", number),
                tapped=record.given,
                counts=record.counts,
                choices=record.choices(),
                broken=record.broken,
                deviation=found,
                rounding=roundings[digest],
                comparable=is_finite(replay, self.names),
                replay_counts=replay.counts,
                expected_counts=expected.counts,
                expected=outputs.expected(expected, self.names),
                distance=self.distance(number, record, given) if run == ALONE else None,
                inside=self._inner is not None,
                unseen="" if self._inner else self._outwards.unseen(replay, roundings[digest]),
            )

    def distance(self, number: int, record: Record, given: Given) -> Distance | None:
        """How far an image in lower precision is from the float32 model."""
        if self.precision.kind == FP32:
            return None
        pixels, choices = torch.from_numpy(self.images.pixels[number]), record.choices()
        replayed, own = self.exact.run(pixels, choices), self.exact.run(pixels)
        return distance(given, record.counts, choices, replayed, own)

    def replay(self, number: int, record: Record) -> Trace:
        """The reference on an image, made to take the decisions of a record."""
        pixels = torch.from_numpy(self.images.pixels[number])
        return self.reference.run(pixels, record.choices(), record.taken)

    def record(self, run: Run, number: int) -> Record:
        """What the file computed for an image in a run."""
        which, index, row = run.place(number, len(self.images))
        if self._inner is None:
            there = self._untapped[run]
            given = {name: there[name][number] for name in self.names}
            counts = _of(there, "token_counts", number)
            return self._outwards.record(self.images.pixels[number], given, counts)
        if self._current.get(run, (None,))[0] != which:
            found = self._inner.run(run, which, self.images.pixels[index])
            self._current[run] = which, found
        tensors = self._current[run][1]
        own = self.geometry
        return taps.read(
            self.plan, tensors, row, own.tokens, own.prefix, self.precision, rounded(own),
            self.fresh, self.names,
        )  # fmt: skip


def _outputs(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    images: Images,
    passes: Sequence[Run],
    computed: Computed,
) -> dict[Run, dict[str, list[NDArray[Any]]]]:
    """What the file as it is gives, by run and name: of each image an array.

    Reading inner tensors may keep onnxruntime from optimising as it does where the file is used.

    Raises:
        ExportError: The file does not run, or an output has another shape.
    """
    if not passes:
        return {}
    geometry = checkpoint.geometry
    shapes: dict[str, Shape] = dict.fromkeys(("token_counts", "overflow"), (geometry.depth,))
    shapes |= {name: geometry.outputs[name] for name in outputs.names(model)}
    there = [output.name for output in model.graph.output]
    if not outputs.names(model):
        known = ", ".join(geometry.outputs)
        raise ExportError(f"the file has no output of {known}, only {', '.join(there)}")
    given = {name: shape for name, shape in shapes.items() if name in there}
    runner = computed.plain()
    return {run: _outputs_of_run(runner, images, run, given) for run in passes}


def _outputs_of_run(
    runner: Runner, images: Images, run: Run, given: Mapping[str, Shape]
) -> dict[str, list[NDArray[Any]]]:
    """The outputs `given` by name, with their shape, of every image in one run."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in given}
    current: int = -1
    arrays: Mapping[str, NDArray[Any]] = {}
    for number in range(len(images)):
        which, index, row = run.place(number, len(images))
        if which != current:
            current = which
            try:
                arrays = runner.run(run, which, images.pixels[index])
            except ExportError as err:
                batch = batch_name(run.size, run.order)
                raise ExportError(f"{images.names[number]}, batch {batch}: {err}") from err
        for name, rows in found.items():
            shape, output = given[name], arrays[name]
            if not fits(output.shape, (run.size, *shape)):
                wanted = ", ".join("any" if side is None else str(side) for side in shape)
                raise ExportError(
                    f"a batch of {run.size} gives {name} of shape {list(output.shape)}; expected "
                    f"[{run.size}, {wanted}]"
                )
            rows.append(output[row])
    return found


def fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Whether a shape is one in which sides may be open."""
    sides = zip(found, shape, strict=False)
    return len(found) == len(shape) and all(b in (None, a) for a, b in sides)


def _of(arrays: Mapping[str, list[NDArray[Any]]], name: str, number: int) -> NDArray[Any] | None:
    """An output of an image, where the file has it."""
    return arrays[name][number] if name in arrays else None

"""The speed tables of the front page and of the manual of timing, measured on this machine.

    python -m tests.speed_table                       all models, printed
    python -m tests.speed_table --write               and what was measured into the READMEs
    python -m tests.speed_table --only DeiT-S --rounds 3
    python -m tests.speed_table --beside CHECKOUT     also time the files of that build

The models (`tests.makers.timed_models`) are made up, dense and reduced, as files for any batch and
for single images, in float32 and int8. Each file runs in a process of its own, at each batch size a
new one, in alternating rounds, so that what slows the machine meets all of them. A reduced file is
compared with the dense file of its own numbers and form. With all models and ten rounds it takes
a quarter of an hour on two idle cores. What was measured is printed after each model.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

import ltmp_export
from ltmp_export.files.workplace import workplace
from ltmp_export.precision.formats import INT8
from ltmp_export.progress import silent
from ltmp_export.runtimes import providers, session
from ltmp_export.timing import rounds
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.environment import environment
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing
from tests.makers import timed_models
from tests.makers.timed_files import OPSET, Order
from tests.makers.timed_models import DYNAMIC, FORMS, IMAGES, SUBJECTS, Key, Subject

HOME = Path(ltmp_export.__path__[0])
FRONT, MANUAL = HOME.parent / "README.md", HOME / "timing" / "README.md"
BEGIN, END = "<!-- python -m tests.speed_table --write -->\n", "<!-- end -->\n"
ROUNDS, WARMUP = 10, 2
BEFORE = " before"  # ends the labels of another build's files
# Where instruction sets are told: int8 depends on them more than on the processor's name.
INSTRUCTIONS = {"avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx_vnni": "AVX VNNI"}


@dataclass(frozen=True)
class Run:
    """A file at a batch size: its times, and the largest memory of its process in MB."""

    timing: Timing
    peak: float | None


@dataclass(frozen=True)
class Row:
    """A reduced file at a batch size, and the dense one of its numbers and form.

    Attributes:
        model: As the tables call it.
        share: Of the dense multiply-accumulates, mean over the images.
        precision: In which numbers it computes.
        form: One of `FORMS`.
        threads: Of an operator.
        own: What was measured.
        dense: Of the dense file.
        dense_fp32: Of the dense float32 file.
        before: Of another build's file, where there is one.
    """

    model: str
    share: float
    precision: str
    form: str
    threads: int
    own: Run
    dense: Run
    dense_fp32: Run
    before: Run | None = None

    @property
    def size(self) -> int:
        return self.own.timing.batch_size

    @property
    def left(self) -> float:
        """Time as a share of the dense file's."""
        return self.own.timing.best / self.dense.timing.best

    @property
    def left_of_fp32(self) -> float:
        """Time as a share of the dense float32 file's."""
        return self.own.timing.best / self.dense_fp32.timing.best

    @property
    def memory(self) -> float | None:
        """Largest memory as a share of the dense file's; None where the system tells none."""
        if self.own.peak is None or self.dense.peak is None:
            return None
        return self.own.peak / self.dense.peak

    @property
    def noise(self) -> float | None:
        """How far runs of the same images differ, the larger of both; None of a single round."""
        both = (self.own.timing.noise, self.dense.timing.noise)
        return max((one for one in both if one is not None), default=None)


def rows(subject: Subject, total: int, threads: int, beside: Path | None) -> Iterator[Row]:
    """Write a subject's files and time them.

    Args:
        subject: The subject.
        total: Rounds.
        threads: Threads of an operator.
        beside: Another checkout, the files of whose build are timed, too.
    """
    with workplace() as folder:
        _say(f"{subject.called}: writing")
        seen = timed_models.images(subject)
        orders = timed_models.orders(subject, seen, folder)
        shares = {key: timed_models.write(order, seen) for key, order in orders.items()}
        contenders = {key: [_contender(key, order)] for key, order in orders.items()}
        if beside is not None:
            others = {k: timed_models.elsewhere(o) for k, o in orders.items() if k.way >= 0}
            timed_models.write_with(beside, list(others.values()))
            for key, order in others.items():
                contenders[key].append(_contender(key, order, BEFORE))
        files = timed_models.keys(subject)
        for size in sorted(set.union(*files.values())):
            chosen = timed_models.chosen(len(seen), size)
            np.save(folder / "images.npy", seen.pixels[chosen])
            taking = [one for key in files if size in files[key] for one in contenders[key]]
            left = {key: float(np.mean(np.take(of, chosen))) for key, of in shares.items()}
            for count in sorted({1, threads} if subject.one_thread else {threads}):
                _say(f"{subject.called}, batch {size}, threads {count}")
                found = _timed(taking, folder, len(chosen), size, count, total)
                yield from _rows(subject, count, left, found)


def _timed(
    contenders: Sequence[Contender], folder: Path, images: int, size: int, threads: int, total: int
) -> dict[str, Run]:
    """By label what is timed at a batch size, in alternating rounds of new processes."""
    shared = {"images": str(folder / "images.npy"), "threads": threads}
    settings = Settings(batch_sizes=(size,), warmup=WARMUP, iterations=total)
    with contextlib.ExitStack() as stack:
        field = Field(contenders, shared, folder, stack)
        order = np.arange(images)
        once = size == 1  # a run that does not count costs little then
        timings = rounds.run(field, order, rounds.no_rows, settings, silent, rehearse=once)
        peaks = [(field.ask(one, "usage") or {}).get("peak_mb") for one in contenders]
    return {timing.model: Run(timing, peak) for timing, peak in zip(timings, peaks, strict=True)}


def _contender(key: Key, order: Order, ending: str = "") -> Contender:
    single = FORMS[key.form] is not None
    file = Path(order.output)
    return Contender(
        key.label + ending, session.ONNXRUNTIME, file, (providers.CPU,), single=single,
        required=True,
    )  # fmt: skip


def _rows(
    subject: Subject, threads: int, left: Mapping[Key, float], found: Mapping[str, Run]
) -> Iterator[Row]:
    for key, share in left.items():
        if key.way < 0 or key.label not in found:
            continue
        called = subject.ways[key.way].called
        yield Row(
            f"{subject.called}, {called}" if called else subject.called,
            share,
            key.precision,
            key.form,
            threads,
            found[key.label],
            found[key.dense.label],
            found[key.dense_fp32.label],
            found.get(key.label + BEFORE),
        )


def machine(total: int, threads: int, found: Sequence[Row]) -> str:
    """What the tables were made with, and how far runs differ."""
    here = environment()
    sets = [name for flag, name in INSTRUCTIONS.items() if flag in _flags()][:1] or ["AVX2"]
    noises = sorted(row.noise for row in found if row.noise is not None)
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "timm"))
    differ = "One round does not tell how far runs differ."
    if noises:
        usual, worst = noises[len(noises) // 2], noises[-1]
        differ = f"Runs of the same images differ by ±{usual:.0%}, in the worst row ±{worst:.0%}."
    return (
        f"{here.processor} ({sets[0]}), threads: {threads} of {here.processors}; {packages}; opset "
        f"{OPSET}; milliseconds per image, best of {total} alternating rounds over {IMAGES} "
        f"images, or as many as a batch has. {differ}"
    )


def _flags() -> frozenset[str]:
    """The processor's instruction sets, where Linux tells them."""
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(errors="replace") if listed.exists() else ""
    told = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(told[1].split() if told else ())


HEAD = ("model", "MACs left", "numbers", "batch", "dense", "reduced", "time left", "speed-up")
FULL_HEAD = (
    *HEAD[:3], "file", "batch", "threads", *HEAD[4:7], "of dense fp32", "memory", "runs by",
)  # fmt: skip


def front(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows of the front page: with as many threads as the table says.

    Files for single images are there of the smallest model alone, which gains most by them.
    """
    most = max(row.threads for row in found)
    return [
        (
            row.model if row.form == DYNAMIC else f"{row.model}, {row.form}", *_head(row)[1:3],
            str(row.size), *_times(row), f"{1 / row.left:.2f}x",
        )
        for row in found
        if row.threads == most and (row.form == DYNAMIC or row.model == SUBJECTS[0].called)
    ]  # fmt: skip


def full(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """All rows."""
    return [
        (
            *_head(row), str(row.threads), *_times(row), f"{row.left_of_fp32:.0%}",
            "–" if row.memory is None else f"{row.memory:.0%}",
            "–" if row.noise is None else f"±{row.noise:.0%}",
        )
        for row in found
    ]  # fmt: skip


def _head(row: Row) -> tuple[str, ...]:
    return row.model, f"{row.share:.0%}", row.precision, row.form, str(row.size)


def _times(row: Row) -> tuple[str, str, str]:
    return _ms(row.dense.timing), _ms(row.own.timing), f"{row.left:.0%}"


def _ms(timing: Timing) -> str:
    return f"{timing.best:.3g}" if timing.best < 100 else f"{timing.best:.0f}"


def document(said: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """What stands between the markers."""
    lines = [head, ["---"] * len(head), *body]
    return f"{said}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(readme: Path, text: str) -> None:
    """Put it between the markers of a README."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} lacks the markers {BEGIN.strip()} and {END.strip()}")
    readme.write_text(before + begin + text + end + after)


def compared(found: Sequence[Row]) -> str:
    """Beside another build: what of the dense time, and memory, was left then and is left now."""
    lines = []
    for row in found:
        if row.before is None:
            continue
        line = (
            f"{row.model} {row.share:.0%} {row.precision} {row.form} batch {row.size} threads "
            f"{row.threads}: {row.before.timing.best / row.dense.timing.best:.3f} before, "
            f"{row.left:.3f} now"
        )
        if row.precision == INT8:
            then = row.before.timing.best / row.dense_fp32.timing.best
            line += f"; of dense fp32 {then:.3f} before, {row.left_of_fp32:.3f} now"
        if row.memory is not None and row.before.peak and row.dense.peak:
            then = row.before.peak / row.dense.peak
            line += f"; memory {then:.3f} before, {row.memory:.3f} now"
        lines.append(line)
    return "\n".join(lines)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.speed_table")
    parser.add_argument("--only", action="append", choices=[s.called for s in SUBJECTS])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=session.processor_count())
    parser.add_argument("--beside", type=Path, help="another checkout, to time its build, too")
    parser.add_argument("--write", action="store_true", help="the tables into the READMEs")
    told = parser.parse_args(arguments)
    if told.beside is not None and not (told.beside / "ltmp_export").is_dir():
        parser.error(f"--beside {told.beside}: no checkout of ltmp is there (ltmp_export/ is not)")
    for flag, value in (("--rounds", told.rounds), ("--threads", told.threads)):
        if value < 1:
            parser.error(f"{flag} {value}: at least 1")
    if told.write and told.only is not None:
        parser.error("--write replaces whole tables: leave --only out")
    found: list[Row] = []
    for subject in SUBJECTS:
        if told.only is None or subject.called in told.only:
            found += rows(subject, told.rounds, told.threads, told.beside)
            _say(document(subject.called, FULL_HEAD, full(found)))
    said = machine(told.rounds, told.threads, found)
    texts = {
        FRONT: document(said, HEAD, front(found)),
        MANUAL: document(said, FULL_HEAD, full(found)),
    }
    print(texts[MANUAL], compared(found), sep="\n")
    for readme, text in texts.items() if told.write else ():
        write(readme, text)


if __name__ == "__main__":
    main()

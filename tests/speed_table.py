"""The speed tables of the front page and of the manual of timing, measured on this machine.

    python -m tests.speed_table                       all models, printed
    python -m tests.speed_table --write               and what was measured into the READMEs
    python -m tests.speed_table --only DeiT-S --rounds 3
    python -m tests.speed_table --keep FOLDER         leave the files there
    python -m tests.speed_table --beside FOLDER       also time those of another build beside them

Each model is made up (`ltmp_export.timing.made_up`), dense and reduced, in float32 and int8, as a
file for any batch and one for single images. Each file runs in a process of its own, in alternating
rounds, so that what slows the machine meets all of them. A reduced file is compared with the dense
file of its own numbers and form. With all models and ten rounds it takes about half an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ltmp_export
from ltmp_export import load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.work import executed_share
from ltmp_export.precision.formats import FP32, INT8, Precision
from ltmp_export.runtimes import providers, session
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing import made_up, rounds
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.environment import environment
from ltmp_export.timing.processes import workplace
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing

HOME = Path(ltmp_export.__path__[0])
FRONT, MANUAL = HOME.parent / "README.md", HOME / "timing" / "README.md"
BEGIN, END = "<!-- python -m tests.speed_table --write -->\n", "<!-- end -->\n"
OPSET, ROUNDS, WARMUP = 17, 10, 2
IMAGES, SCORED, CALIBRATED = 16, 16, 4
SIZES = (1, 16)
DIGITS = "digits"  # the checkpoint that ships inside
DENSE, DYNAMIC, SINGLE = "dense", "any batch", "`--batch-size 1`"
FORMS: Mapping[str, int | None] = {DYNAMIC: None, SINGLE: 1}
PRECISIONS = (FP32, INT8)
BEFORE = " before"  # ends the labels of another build's files
# Where instruction sets are told: int8 depends on them more than on the processor's name.
INSTRUCTIONS = {"avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx_vnni": "AVX VNNI"}


class Way(NamedTuple):
    """How a model is reduced: thresholds for a share of the work, or so many tokens a block."""

    called: str
    family: str
    share: float | None = None
    rate: int = 0


@dataclass(frozen=True)
class Subject:
    """A model, and how it is reduced.

    Attributes:
        called: As the tables call it.
        name: timm's; "" for the embedded checkpoint.
        ways: How it is reduced.
        kwargs: For timm's model.
    """

    called: str
    name: str
    ways: tuple[Way, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def _share(share: float) -> Way:
    return Way("", "ltmp", share)


SUBJECTS = (
    Subject(DIGITS, "", (Way("", "ltmp"),)),
    Subject("DeiT-tiny", "deit_tiny_patch16_224", (_share(0.53),)),
    Subject(
        "DeiT-S",
        "deit_small_patch16_224",
        (_share(0.52), _share(0.28), Way("`--family m --r 13`", "m", rate=13)),
    ),
    Subject("ViT-B", "vit_base_patch16_224", (_share(0.6),)),
)


class Key(NamedTuple):
    """A file: of which way (by its number; -1 for the dense model), in which numbers and form."""

    way: int
    precision: str
    form: str

    @property
    def label(self) -> str:
        way = DENSE if self.way < 0 else str(self.way)
        return f"{way} {self.precision} {'single' if FORMS[self.form] else 'dynamic'}"

    @property
    def dense(self) -> Key:
        return self._replace(way=-1)


@dataclass(frozen=True)
class Row:
    """A reduced file at a batch size, and the dense one of its numbers and form.

    Attributes:
        model: As the tables call it.
        share: Of the dense multiply-accumulates, mean over the images.
        precision: In which numbers it computes.
        form: One of `FORMS`.
        size: Images in one run.
        own: Its times.
        dense: The dense file's.
        dense_fp32: The dense float32 file's.
        before: The times of another build's file, where there is one.
    """

    model: str
    share: float
    precision: str
    form: str
    size: int
    own: Timing
    dense: Timing
    dense_fp32: Timing
    before: Timing | None = None

    @property
    def left(self) -> float:
        """Time as a share of the dense file's."""
        return self.own.best / self.dense.best

    @property
    def noise(self) -> float:
        """How far runs of the same images differ, the larger of both; 0 of a single round."""
        return max(self.own.noise or 0.0, self.dense.noise or 0.0)


def files(subject: Subject, folder: Path) -> tuple[Images, dict[Key, float]]:
    """Write every file of a subject, and the images; each file's share of the work."""
    if subject.name:
        dense = made_up.checkpoint(subject.name, **subject.kwargs)
        images = inputs.synthetic(dense.geometry, IMAGES)
    else:
        whole = load_checkpoint(inputs.fixture(inputs.DIGITS))
        dense = replace(whole, plan=dense_plan(whole.geometry.depth))
        images = inputs.embedded_digits().select(IMAGES)
    np.save(folder / "images.npy", images.pixels)
    shares = {}
    for number, source in enumerate([dense, *(_reduced(dense, w, images) for w in subject.ways)]):
        for precision in PRECISIONS:
            lowered = Precision(precision, protected=precision != INT8 or number > 0)
            if precision == INT8:
                source, lowered = quantise.prepare(source, images.select(CALIBRATED), lowered)
            for form, batch_size in FORMS.items():
                model = to_onnx(source, opset=OPSET, batch_size=batch_size, precision=lowered)
                key = Key(number - 1, precision, form)
                external.store(path(folder, subject, key), model)
                shares[key] = 1.0 if number == 0 else _left(source, model, images)
    return images, shares


def path(folder: Path, subject: Subject, key: Key) -> Path:
    """Where a file stands."""
    return folder / f"{subject.called} {key.label}.onnx".replace(" ", "_")


def _reduced(dense: Checkpoint, way: Way, images: Images) -> Checkpoint:
    if way.rate:
        return made_up.at_rate(dense, way.family, way.rate)
    if way.share:
        return made_up.at_share(dense, way.family, way.share, images.select(SCORED))
    return load_checkpoint(dense.path)


def _left(source: Checkpoint, model: Any, images: Images) -> float:
    """From the tokens that the file keeps."""
    taps = interface.count_taps(source.geometry.depth)
    tapped = TappedSession(model, taps)
    found = [tapped.run(pixels[None]) for pixels in images.pixels]
    counts = [[int(one[name].reshape(-1)[0]) for name in taps] for one in found]
    return executed_share(source.geometry, source.plan, counts)


def rows(
    subject: Subject, total: int, threads: int, keep: Path | None, beside: Path | None
) -> Iterator[Row]:
    """Write a subject's files and time them.

    Args:
        subject: The subject.
        total: Rounds.
        threads: Threads of an operator.
        keep: Where the files stay.
        beside: Where another build's files are.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace()) if keep is None else keep
        _say(f"{subject.called}: writing")
        images, shares = files(subject, folder)
        contenders = [_contender(key, key.label, path(folder, subject, key)) for key in shares]
        for key in shares if beside is not None else ():
            other = path(Path(beside or ""), subject, key).resolve()
            if key.way >= 0 and other.exists():
                contenders.append(_contender(key, key.label + BEFORE, other))
        shared = {"images": str((folder / "images.npy").resolve()), "threads": threads}
        opened = Field(contenders, shared, stack.enter_context(workplace()), stack)
        settings = Settings(batch_sizes=SIZES, warmup=WARMUP, iterations=total)
        order, called = np.arange(len(images)), subject.called
        timings = rounds.run(
            opened, order, rounds.no_rows, settings, lambda words: _say(f"{called}: {words}")
        )
    found = {(timing.model, timing.batch_size): timing for timing in timings}
    for key, share in shares.items():
        for size in SIZES:
            if key.way < 0 or (key.label, size) not in found:
                continue
            yield Row(
                f"{subject.called}{', ' * bool(subject.ways[key.way].called)}"
                f"{subject.ways[key.way].called}",
                share, key.precision, key.form, size,
                found[key.label, size],
                found[key.dense.label, size],
                found[key.dense._replace(precision=FP32).label, size],
                found.get((key.label + BEFORE, size)),
            )  # fmt: skip


def _contender(key: Key, label: str, file: Path) -> Contender:
    single = FORMS[key.form] is not None
    return Contender(
        label, session.ONNXRUNTIME, file.resolve(), (providers.CPU,), single=single, required=True
    )


def machine(total: int, threads: int, found: Sequence[Row]) -> str:
    """What the tables were made with, and how far runs differ."""
    here = environment()
    sets = [name for flag, name in INSTRUCTIONS.items() if flag in _flags()][:1] or ["AVX2"]
    noises = sorted(row.noise for row in found)
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "timm"))
    usual, worst = noises[len(noises) // 2], noises[-1]
    return (
        f"{here.processor} ({sets[0]}), threads: {threads} of {here.processors}; {packages}; opset "
        f"{OPSET}; milliseconds per image, best of {total} alternating rounds over {IMAGES} "
        f"images. Runs of the same images differ by ±{usual:.0%}, in the worst row by ±{worst:.0%}."
    )


def _flags() -> frozenset[str]:
    """The processor's instruction sets, where Linux tells them."""
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(errors="replace") if listed.exists() else ""
    told = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(told[1].split() if told else ())


HEAD = ("model", "MACs left", "numbers", "batch", "dense", "reduced", "time left", "speed-up")
FULL_HEAD = (
    *HEAD[:3], "file", *HEAD[3:7], "of dense fp32", "runs by",
)  # fmt: skip


def front(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows of the front page: files for any batch, int8 of the model with the most ways."""
    most = max(SUBJECTS, key=lambda subject: len(subject.ways)).called
    return [
        (*_head(row), str(row.size), _ms(row.dense), _ms(row.own), f"{row.left:.0%}",
         f"{1 / row.left:.2f}x")
        for row in found
        if row.form == DYNAMIC and (row.precision == FP32 or row.model == most)
    ]  # fmt: skip


def full(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """All rows."""
    return [
        (*_head(row), row.form, str(row.size), _ms(row.dense), _ms(row.own), f"{row.left:.0%}",
         f"{row.own.best / row.dense_fp32.best:.0%}", f"±{row.noise:.0%}")
        for row in found
    ]  # fmt: skip


def _head(row: Row) -> tuple[str, str, str]:
    return row.model, f"{row.share:.0%}", row.precision


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
    """Beside another build: what of the dense time was left then and is left now."""
    lines = [
        f"{row.model} {row.share:.0%} {row.precision} {row.form} batch {row.size}: "
        f"{row.before.best / row.dense.best:.3f} before, {row.left:.3f} now"
        for row in found
        if row.before is not None
    ]
    return "\n".join(lines)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.speed_table")
    parser.add_argument("--only", action="append", choices=[s.called for s in SUBJECTS])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=session.processor_count())
    parser.add_argument("--keep", type=Path, help="an existing folder for the files")
    parser.add_argument("--beside", type=Path, help="files of another build, from its --keep")
    parser.add_argument("--write", action="store_true", help="the tables into the READMEs")
    told = parser.parse_args(arguments)
    chosen = [s for s in SUBJECTS if told.only is None or s.called in told.only]
    how = (told.rounds, told.threads, told.keep, told.beside)
    found = [row for subject in chosen for row in rows(subject, *how)]
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

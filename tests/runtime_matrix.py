"""What files do in which runtime: `fixtures/runtimes.json` and the tables of the READMEs, run here.

    python -m tests.runtime_matrix                       all that is present, printed
    python -m tests.runtime_matrix --write               and written, beside what is not present
    python -m tests.runtime_matrix --only MNN --only tract --file dynamic
    python -m tests.runtime_matrix --node DIR     whose node_modules has onnxruntime-node and -web
    python -m tests.runtime_matrix --beside onnxruntime-openvino=PYTHON   what needs its own Python

The files are the digits at opset 17, each in the form that the runtime needs (`ltmp export --for`).
Each runs in a process of its own, at batches 1, 2 and 7, within a time limit, and what it gives is
proved as `ltmp check --recorded` does. IREE takes minutes for each file and batch.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

import ltmp_export
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import LtmpError
from ltmp_export.graph.targets import TARGETS
from ltmp_export.precision.formats import FP16, INT8, QDQ, Precision
from ltmp_export.runtimes import matrix
from ltmp_export.runtimes.matrix import Cell, Matrix, Row
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, load_torch
from tests.documents import manuals
from tests.makers import matrix_cells, recordings
from tests.makers.matrix_cells import TOLD

HOME = Path(ltmp_export.__path__[0])
MANUAL = HOME / "runtimes" / "README.md"
BEGIN, END = "<!-- python -m tests.runtime_matrix --write -->\n", "<!-- end -->\n"
OPSET, BATCHES, LIMIT = 17, (1, 2, 7), 1200  # seconds
NODE = ("onnxruntime-node", "onnxruntime-web")
# What a module of another name tells of, to know whether it is here; in the order of the table.
PRESENT = {
    "onnxruntime": "onnxruntime", "onnxruntime-openvino": "", "OpenVINO": "openvino",
    "onnxruntime-node": "", "onnxruntime-web": "", "tract": "tract", "IREE": "iree.compiler",
    "MNN": "MNN", "TVM": "tvm", "onnx2pytorch": "onnx2pytorch", "onnx2torch": "onnx2torch",
    "onnx's ReferenceEvaluator": "onnx",
}  # fmt: skip


@dataclass(frozen=True)
class File:
    """What is exported.

    Attributes:
        described: For people.
        rate: Of the family m, which takes any weights; else thresholds.
        batch_size: 1 for single images only.
        keep_tokens: A budget.
        precision: In which numbers.
    """

    described: str
    rate: str | None = None
    batch_size: int | None = None
    keep_tokens: str | None = None
    precision: Precision | None = None


FILES: Mapping[str, File] = {
    "dynamic": File("any batch, thresholds"),
    "single": File("`--batch-size 1`", batch_size=1),
    "static `m`": File("`--family m`", rate="8"),
    "budget": File("`--mode static --keep-tokens`", keep_tokens="60,50,40,30,20,15"),
    "int8": File("`--precision int8`", precision=Precision(INT8)),
    "int8 `qdq`": File("`--int8-form qdq`", precision=Precision(INT8, int8_form=QDQ)),
    "fp16": File("`--precision fp16`", precision=Precision(FP16)),
}


class Bench:
    """Where cells are run: a folder for files, and the checkpoints they are of."""

    def __init__(self, folder: Path, limit: int, node: Path | None) -> None:
        self._folder, self._limit, self._node = folder, limit, node
        base = folder / "base.pth"
        weights = load_torch(DIGITS_LTMP)["state_dict"]
        dense = {key: value for key, value in weights.items() if "_masker.threshold" not in key}
        torch.save(dense, base)
        self._checkpoints: dict[str | None, Checkpoint] = {None: load_checkpoint(DIGITS_LTMP)}
        for rate in {file.rate for file in FILES.values()} - {None}:
            stated = Choices(family="m", rate=rate, num_heads=2)
            self._checkpoints[rate] = load_checkpoint(base, stated)
        self._written: dict[tuple[str, str], tuple[Path, bool]] = {}

    def cell(self, runtime: str, name: str, python: str) -> tuple[Cell, str]:
        """A file in a runtime, and the runtime's version."""
        target = runtime.lower() if runtime.lower() in TARGETS else ""
        model, changed = self._file(name, target)
        target = target if changed else ""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        fed = model.with_suffix(".npz")
        if runtime in NODE:
            command, version = self._in_node(runtime, place, model)
        else:
            command = [python, "-m", "tests.makers.matrix_cells", runtime, *map(str, (model, fed))]
            command.append(str(place / "recorded"))
            version = ""
        said = _run(command, self._limit, place if runtime in NODE else HOME.parent)
        told = place / "recorded" / TOLD
        refused: dict[str, str] = {}
        if said is not None and runtime in NODE:
            refused = {"": _of_node(said)}
        elif said is None and told.exists():
            found = json.loads(told.read_text())
            version, refused = found["version"], found["refused"]
        elif said is not None:
            if said == "":
                late = f"no result in {self._limit} s"
                return Cell(matrix.LATE, target=target, said=late), version
            refused = {"": said}
        return self._judged(name, model, place / "recorded", target, refused), version

    def _judged(
        self, name: str, model: Path, recorded: Path, target: str, refused: Mapping[str, str]
    ) -> Cell:
        """What a recording proves; where a batch was refused, what the others are."""
        apart = self._apart(name, recorded)
        if refused:
            if apart is not None and not apart < 0.1:
                return Cell(matrix.WRONG, apart, target, "where it runs")
            return Cell(matrix.REFUSED, target=target, said=told_briefly(refused, recorded))
        try:
            checkpoint = self._checkpoints[FILES[name].rate]
            found = ltmp_export.check(model, checkpoint, recorded=recorded)
        except LtmpError as err:
            return Cell(matrix.WRONG, apart, target, str(err))
        right = found.verdict in ("equal", "borderline", "bounded")
        said = found.headline()
        if right:
            other = {one.number for one in found.of("borderline")}
            apart = self._apart(name, recorded, other)
            of = len({one.number for one in found.comparisons})
            said = f"{len(other)} of {of} images on a threshold, the other way" if other else ""
        return Cell(matrix.RIGHT if right else matrix.WRONG, apart, target, said)

    def _apart(self, name: str, recorded: Path, but: Container[int] = ()) -> float | None:
        """The largest difference of a logit from onnxruntime's of the file without a form.

        `but` are images that are left out.
        """
        model, _ = self._file(name, "")
        session = Session(onnx.load(model), threads=1, quiet=True)
        with np.load(model.with_suffix(".npz")) as fed:
            images = fed["images"]
        found = None
        for size in BATCHES:
            for which in range(len(images) // size):
                path = recorded / f"batch_{size}/{which}/logits.npy"
                if path.exists():
                    wanted = session.run(images[which * size : which * size + size])[0]
                    given = np.load(path).astype(np.float32)
                    same = given.shape == wanted.shape
                    rows = [row for row in range(size) if which * size + row not in but]
                    off = np.abs(given[rows] - wanted[rows]) if same else np.full(1, np.inf)
                    apart = float(off.max(initial=0.0))
                    found = max(found or 0.0, apart if apart == apart else np.inf)
        return None if found is None else float(f"{found:.1e}")

    def _file(self, name: str, target: str) -> tuple[Path, bool]:
        """A file in the form for a runtime, and whether that changes it; what it is fed, beside."""
        if (name, target) not in self._written:
            plain = self._file(name, "")[0] if target else None
            file = FILES[name]
            path = self._folder / f"{len(self._written)}.onnx"
            ltmp_export.export(
                self._checkpoints[file.rate], path, opset=OPSET, batch_size=file.batch_size,
                mode="static" if file.keep_tokens else None, keep_tokens=file.keep_tokens,
                precision=file.precision, target=target or None, check=False,
            )  # fmt: skip
            ltmp_export.inputs(path, path.with_suffix(".npz"))
            changed = plain is not None and _nodes(path) != _nodes(plain)
            self._written[name, target] = path, changed
        return self._written[name, target]

    def _in_node(self, package: str, place: Path, model: Path) -> tuple[list[str], str]:
        """The manual's program in Node, and the package's version."""
        assert self._node is not None
        home = self._node.resolve() / "node_modules" / package
        version = json.loads((home / "package.json").read_text())["version"]
        (source,) = manuals.blocks(MANUAL, "js")
        asked = f'"{package}"'
        if package == "onnxruntime-web":
            source = source.replace('"onnxruntime-node"', asked)
            one = "ort.env.wasm.numThreads = 1;\nconst [model"
            source = source.replace("const [model", one, 1)
        assert asked in source
        single = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
        (place / "record.mjs").write_text(
            source.replace("[1, 2, 7]", "[1]" if single else "[7, 2, 1]")
        )
        os.symlink(self._node.resolve() / "node_modules", place / "node_modules")
        fed = place / "fed"
        with np.load(model.with_suffix(".npz")) as given:
            recordings.write(fed, dict(given))
        node = shutil.which("node") or "node"
        return [node, "record.mjs", str(model), str(fed), str(place / "recorded")], version


def _nodes(path: Path) -> list[bytes]:
    return [node.SerializeToString() for node in onnx.load(path).graph.node]


def _run(command: Sequence[str], limit: int, place: Path) -> str | None:
    """None where a command succeeds, "" where the time is over, else what it says at last."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command, cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            return ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and what it started
            child.wait()
        output.seek(0)
        written = output.read().decode(errors="replace").strip()
    if code < 0:
        return f"died of signal {-code}"
    return None if code == 0 else written or f"exit code {code}"


def _of_node(said: str) -> str:
    """The error in what Node writes of one."""
    errors = [line for line in said.splitlines() if re.match(r"\s*\w*Error: ", line)]
    return errors[0].strip() if errors else said.splitlines()[-1]


def told_briefly(refused: Mapping[str, str], recorded: Path) -> str:
    """Why batches are refused, and which, if others are not."""
    size, said = next(iter(refused.items()))
    line = " ".join(said.split())
    line = re.sub(r"^\w*(Error|Exception|Fail): ", "", line)
    line = re.sub(r'^Translating node #\d+ "[^"]*" (\w+) \w+ Caused by:?', r"\1:", line)  # tract
    line = re.sub(r"\S*/ltmp[^ ]*/\S*", "…", line)
    line = line.replace("|", "/").replace("`", "'")
    line = line if len(line) <= 70 else f"{line[:68].rstrip()} …"
    some = recorded.is_dir() and any(recorded.glob("batch_*"))
    return (
        f"batch {', '.join(sorted(refused, key=int))}: `{line}`" if size and some else f"`{line}`"
    )


def present(only: Sequence[str], node: Path | None, beside: Mapping[str, str]) -> Iterator[str]:
    """Runtimes that are here, of those asked for."""
    for name, module in PRESENT.items():
        if only and name not in only:
            continue
        if name in NODE:
            here = node is not None and (node / "node_modules" / name).is_dir()
        else:
            here = name in beside or bool(module and importlib.util.find_spec(module.split(".")[0]))
        if here:
            yield name


def table(found: Matrix) -> str:
    """What stands between the markers."""
    said = (
        f"Run on {found.date}, opset {found.opset}, at batches "
        f"{', '.join(map(str, found.batches))}; largest difference of a logit from onnxruntime's, "
        "or why it is refused:"
    )
    lines = [["runtime", *found.files], ["---"] * (1 + len(found.files))]
    for row in found.rows:
        cells = [row.cells[name].text() if name in row.cells else "" for name in found.files]
        lines.append([f"{row.name} {row.version}".strip(), *cells])
    return f"{said}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_table(readme: Path, text: str) -> None:
    """Put it between the markers of a README."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} lacks the markers {BEGIN.strip()} and {END.strip()}")
    readme.write_text(before + begin + text + end + after)


def joined(new: Sequence[Row]) -> Matrix:
    """What was run now in the place of what was run before; other cells of a version stay."""
    old = {row.name: row for row in matrix.read().rows} if matrix.PATH.exists() else {}
    rows = dict(old)
    for row in new:
        before = old.get(row.name)
        kept = before.cells if before is not None and before.version == row.version else {}
        rows[row.name] = replace(row, cells={**kept, **row.cells})
    described = {name: file.described for name, file in FILES.items()}
    today = datetime.date.today().isoformat()
    ordered = tuple(rows[name] for name in PRESENT if name in rows)
    return Matrix(today, OPSET, BATCHES, described, ordered)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.runtime_matrix")
    parser.add_argument("--only", action="append", choices=list(PRESENT), default=[])
    parser.add_argument("--file", action="append", choices=list(FILES), default=[])
    parser.add_argument("--node", type=Path, help="a folder with node_modules")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds of a cell")
    parser.add_argument("--write", action="store_true", help="the data file and the tables")
    told = parser.parse_args(arguments)
    beside = dict(pair.split("=", 1) for pair in told.beside)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ltmp-matrix-") as folder:
        bench = Bench(Path(folder), told.limit, told.node)
        for runtime in present(told.only, told.node, beside):
            assert runtime in NODE or runtime in matrix_cells.OPENED
            cells, version = {}, ""
            for name in told.file or FILES:
                python = beside.get(runtime, sys.executable)
                cells[name], version_told = bench.cell(runtime, name, python)
                version = version_told or version
                print(f"{runtime} {version}, {name}: {cells[name].text()}", flush=True)
                if told.write and version:  # at once: a cell may take an hour
                    matrix.write(joined([Row(runtime, version, cells)]))
                    write_table(MANUAL, table(matrix.read()))
            rows.append(Row(runtime, version, cells))
    print(table(joined(rows)))


if __name__ == "__main__":
    main()

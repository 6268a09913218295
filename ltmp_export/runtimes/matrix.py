"""What files were seen to do in which runtime.

`python -m tests.runtime_matrix` makes it. It stands in `fixtures/runtimes.json`, and nothing heavy
is imported to read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ltmp_export

PATH = Path(ltmp_export.__path__[0]) / "fixtures" / "runtimes.json"
RIGHT, REFUSED, WRONG, LATE, NOT_RUN = "right", "refused", "wrong", "late", "not run"
VERDICTS = (RIGHT, REFUSED, WRONG, LATE, NOT_RUN)


@dataclass(frozen=True)
class Cell:
    """A file in a runtime.

    Attributes:
        verdict: One of `VERDICTS`; "right" where the proof of `ltmp check` holds of every batch.
        largest: Difference of an answer from that of onnxruntime, or None without one.
        target: The `--for` that the file was written with, or "" where it changes nothing.
        said: Why it was refused, in few words; what is wrong; how long was waited; of what is
            right, how many images have a decision on its threshold that fell the other way.
    """

    verdict: str
    largest: float | None = None
    target: str = ""
    said: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r}; expected one of {', '.join(VERDICTS)}")

    @property
    def figure(self) -> str:
        """The difference, of one digit."""
        if self.largest is None:
            return ""
        return f"{self.largest:.0e}".replace("e-0", "e-") if self.largest else "the same"

    def short(self) -> str:
        """For a narrow table: a star where it is exported for the runtime."""
        if self.verdict == RIGHT:
            return self.figure + "*" * bool(self.target)
        return "no" if self.verdict == REFUSED else self.verdict

    def text(self) -> str:
        """For a table."""
        told = self.figure
        if self.verdict == RIGHT:
            told += f" (`--for {self.target}`)" if self.target else ""
            return f"{told}, {self.said}" if self.said else told
        if self.verdict == WRONG:
            return f"**wrong** by {told or '?'}: {self.said}"
        return self.said or self.verdict


@dataclass(frozen=True)
class Row:
    """A runtime.

    Attributes:
        name: As tables call it.
        version: Of it.
        cells: By the names of `Matrix.files`.
    """

    name: str
    version: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Matrix:
    """All of it.

    Attributes:
        date: When it was run last.
        opset: Of the files.
        batches: At which they ran.
        files: What each was exported as, by name, in the order of the table.
        rows: The runtimes.
    """

    date: str
    opset: int
    batches: tuple[int, ...]
    files: Mapping[str, str]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row | None:
        """A runtime by its name in lower case."""
        return next((row for row in self.rows if row.name.lower() == name.lower()), None)


def read(path: Path = PATH) -> Matrix:
    """The matrix as it was written."""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(
        Row(
            row["name"],
            row["version"],
            {name: Cell(**cell) for name, cell in row["cells"].items()},
        )
        for row in facts["rows"]
    )
    batches = tuple(facts["batches"])
    return Matrix(facts["date"], facts["opset"], batches, facts["files"], rows)


def write(matrix: Matrix, path: Path = PATH) -> None:
    """Write it, a line for each cell."""
    path.write_text(json.dumps(asdict(matrix), indent=1, ensure_ascii=False) + "\n")

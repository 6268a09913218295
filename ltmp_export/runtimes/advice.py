"""What is known to fail of a file that is written for a runtime, and what to choose in its place.

All of it is read from the matrix of what was seen, see `runtimes.matrix`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ltmp_export.precision.formats import FP16, FP32, INT8, QDQ, Precision
from ltmp_export.runtimes import matrix
from ltmp_export.runtimes.matrix import LATE, REFUSED, RIGHT, WRONG, Matrix, Row

# Of the matrix's files those in float32, by what they are.
DYNAMIC, SINGLE, STATIC, BUDGET = "dynamic", "single", "static `m`", "budget"
PLAIN = (DYNAMIC, SINGLE, STATIC, BUDGET)
# Those in other numbers, which are dynamic.
IN_INT8, IN_QDQ, IN_HALF = "int8", "int8 `qdq`", "fp16"
KINDS = {IN_INT8: INT8, IN_QDQ: INT8, IN_HALF: FP16} | dict.fromkeys(PLAIN, FP32)
SEEN = {REFUSED: "did not take", WRONG: "computed other numbers of", LATE: "was not done with"}


def doubts(
    target: str | None,
    static: bool,
    budget: object | None,
    batch_size: int | None,
    precision: Precision,
) -> tuple[str, ...]:
    """A line on a file that the runtime was seen to fail on for which it is written, or none.

    Args:
        target: The runtime, of `graph.targets.TARGETS`.
        static: Whether all shapes but the batch are known before running.
        budget: That by which they are, where one makes it so.
        batch_size: The only one that the file takes, or None.
        precision: In which numbers it computes.
    """
    file = kind(static, budget is not None, batch_size is not None, precision)
    return () if target is None or file is None else failed(target, file, matrix.read())


def kind(static: bool, budget: bool, single: bool, precision: Precision) -> str | None:
    """Which file of the matrix one is like, or None where none was tried."""
    if precision.kind == FP32:
        plain = BUDGET if budget else STATIC
        return plain if static else SINGLE if single else DYNAMIC
    if static or single:
        return None
    if precision.kind == FP16:
        return IN_HALF
    return IN_QDQ if precision.int8_form == QDQ else IN_INT8


def failed(target: str, file: str, seen: Matrix) -> tuple[str, ...]:
    """A line on a file of the matrix that a runtime was seen to fail on, or none."""
    row = seen.row(target)
    if row is None or file not in row.cells or row.cells[file].verdict not in SEEN:
        return ()
    how = SEEN[row.cells[file].verdict]
    told = f"{file}: {seen.files[file]}".replace("`", "")
    return (
        f"{row.name} {row.version} {how} such a file ({told}) when it was tried, see 'ltmp "
        f"runtimes'; choose {_ways(row, file, seen)}",
    )


def _ways(row: Row, file: str, seen: Matrix) -> str:
    """What a runtime was right with: other files in these numbers, else those in float32."""
    right = [name for name, cell in row.cells.items() if cell.verdict == RIGHT]
    alike = [_option(seen, name) for name in right if KINDS[name] == KINDS[file]]
    if KINDS[file] == FP32 or (alike and DYNAMIC not in right):
        return _or(alike)
    if DYNAMIC in right:
        return _or([*alike, "--precision fp32"])
    plain = [_option(seen, name) for name in right if KINDS[name] == FP32]
    return f"--precision fp32 with {_or(plain)}" if plain else _or([])


def _option(seen: Matrix, name: str) -> str:
    return seen.files[name].replace("`", "")


def _or(ways: Sequence[str]) -> str:
    """In words."""
    *first, last = ways or ["another runtime"]
    return f"{', '.join(first)} or {last}" if first else last

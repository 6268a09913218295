"""What a runtime is known not to take, told where a file is written for it."""

from __future__ import annotations

import pytest

from ltmp_export.graph.targets import ANY, TARGETS
from ltmp_export.precision.formats import FP16, INT8, QDQ, Precision
from ltmp_export.runtimes import advice, matrix
from ltmp_export.runtimes.matrix import LATE, NOT_RUN, REFUSED, RIGHT, WRONG, Cell, Matrix, Row

DESCRIBED = {
    advice.DYNAMIC: "any batch", advice.SINGLE: "`--one`", advice.STATIC: "`--m`",
    advice.BUDGET: "`--keep`", advice.IN_INT8: "`--int8`", advice.IN_QDQ: "`--qdq`",
    advice.IN_HALF: "`--half`",
}  # fmt: skip


def seen(**verdicts: str) -> Matrix:
    """Of a runtime that is right with what is not named."""
    named = {"qdq": advice.IN_QDQ, "static": advice.STATIC, "half": advice.IN_HALF}
    cells = dict.fromkeys(DESCRIBED, Cell(RIGHT))
    cells |= {named.get(name, name): Cell(verdict) for name, verdict in verdicts.items()}
    return Matrix("", 17, (1,), DESCRIBED, (Row("Run", "1.2", cells),))


def test_what_a_file_is_like() -> None:
    plain, half, int8 = Precision(), Precision(FP16), Precision(INT8)
    cases = (
        (False, False, False, plain, advice.DYNAMIC),
        (False, False, True, plain, advice.SINGLE),
        (True, False, True, plain, advice.STATIC),
        (True, True, False, plain, advice.BUDGET),
        (False, False, False, half, advice.IN_HALF),
        (False, False, False, int8, advice.IN_INT8),
        (False, False, False, Precision(INT8, int8_form=QDQ), advice.IN_QDQ),
        (True, False, False, half, None),  # nobody tried
        (False, False, True, int8, None),
    )
    for static, budget, single, precision, like in cases:
        assert advice.kind(static, budget, single, precision) == like


@pytest.mark.parametrize(
    ("verdicts", "file", "how", "ways"),
    [
        ({"dynamic": REFUSED}, "dynamic", "did not take", "--one, --m or --keep"),
        ({"dynamic": WRONG}, "dynamic", "computed other numbers of", "--one, --m or --keep"),
        ({"dynamic": LATE, "single": REFUSED, "static": WRONG}, "dynamic", "was not done with",
         "--keep"),
        ({"int8": REFUSED}, "int8", "did not take", "--qdq or --precision fp32"),
        ({"int8": REFUSED, "dynamic": REFUSED}, "int8", "did not take", "--qdq"),
        ({"half": REFUSED, "dynamic": REFUSED}, advice.IN_HALF, "did not take",
         "--precision fp32 with --one, --m or --keep"),
        (dict.fromkeys(DESCRIBED, REFUSED), "int8", "did not take", "another runtime"),
    ],
)  # fmt: skip
def test_what_is_told(verdicts: dict[str, str], file: str, how: str, ways: str) -> None:
    (told,) = advice.failed("run", file, seen(**verdicts))
    assert told.startswith(f"Run 1.2 {how} such a file ({file.replace('`', '')}: ")
    assert told.endswith(f" when it was tried, see 'ltmp runtimes'; choose {ways}")
    assert advice.failed("walk", file, seen(**verdicts)) == ()


def test_nothing_is_told_of_what_is_right_or_was_not_run() -> None:
    for verdict in (RIGHT, NOT_RUN):
        assert advice.failed("run", "dynamic", seen(dynamic=verdict)) == ()
    for target in (None, ANY, "tensorrt"):
        assert advice.doubts(target, False, None, None, Precision()) == ()
    assert advice.doubts("tract", True, None, None, Precision(FP16)) == ()
    assert advice.doubts("tract", True, (9, 9), None, Precision()) == ()
    (told,) = advice.doubts("tract", False, None, None, Precision(FP16))
    assert told.endswith(
        "choose --precision fp32 with --batch-size 1, --family m or --mode static --keep-tokens"
    )


def test_the_files_of_the_matrix_are_those_that_are_known_here() -> None:
    found = matrix.read()
    assert set(found.files) == set(advice.KINDS)
    for target in TARGETS:
        for file in found.files:
            for told in advice.failed(target, file, found):
                assert "\n" not in told
                assert len(told) < 220

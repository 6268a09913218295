"""Steps one after the other, on a small table worked out by hand (METHOD §1)."""

from __future__ import annotations

import math

from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Decision, Matching, take
from tests.makers.tokens import close, tokens

INF = math.inf


def test_the_order_of_the_steps_matters() -> None:
    """Merging first lets a maximum save a token; pruning first changes the even/odd split."""
    given = tokens(
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
        importance=[INF, 0.1, 0.5, 0.4, 0.3],
    )
    merged_first, _ = take(Prune(0.2), take(Merge(0.5), given, None, {})[0], None, {})
    # rows 2 and 4 go into 1, whose importance becomes 0.5; row 3 stays on its own
    assert close(merged_first.x, [[0.0], [7 / 3], [3.0]])
    assert merged_first.size.tolist() == [1.0, 3.0, 1.0]

    pruned_first, _ = take(Merge(0.5), take(Prune(0.2), given, None, {})[0], None, {})
    # 0, 2, 3, 4 are left: source 3 is unlike 2 and 4 and stays
    assert close(pruned_first.x, [[0.0], [3.0], [2.0], [4.0]])
    assert pruned_first.size.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_take_takes_the_step_it_is_given() -> None:
    given = tokens([[1.0]] * 3)
    for step, kind in ((Merge(0.25), Matching), (Prune(0.75), Decision)):
        decision = take(step, given, None, {})[1]
        assert type(decision) is kind
        assert decision.step == step
        assert decision.threshold == step.threshold

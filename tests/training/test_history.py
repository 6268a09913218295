"""The steps of a run as they are stored and as CSV."""

from __future__ import annotations

import pytest

from ltmp_export.training import history
from tests.makers.trainers import trainer


class TestHistory:
    def test_there_and_back(self) -> None:
        records = list(trainer().run())
        assert history.from_tensor(history.to_tensor(records), ("merge", "prune")) == records

    def test_csv(self) -> None:
        records = list(trainer().run())
        header, *rows = history.to_csv(records).decode().splitlines()
        assert header == (
            "epoch,step,loss,cross_entropy,accuracy,mac_ratio,rate,"
            "merge_0,merge_1,merge_2,merge_3,prune_0,prune_1,prune_2,prune_3"
        )
        assert len(rows) == 4
        assert rows[3].startswith("1,3,")
        values = dict(zip(header.split(","), map(float, rows[1].split(",")), strict=True))
        assert values["loss"] == pytest.approx(records[1].loss, rel=1e-8)
        assert values["prune_2"] == pytest.approx(records[1].thresholds["prune"][2], rel=1e-8)

    def test_of_no_step(self) -> None:
        assert history.to_csv([]).decode().startswith("epoch,step,loss")

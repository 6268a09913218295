"""Where a run stands among others: torchrun's processes, and the device."""

from __future__ import annotations

import pytest
import torch

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.training.processes import process


class TestProcess:
    @pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR"])
    def test_what_torchrun_sets_in_part(
        self, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv(missing)
        with (
            pytest.raises(InputError, match=f"WORLD_SIZE is set, but not {missing}"),
            process("cpu"),
        ):
            pass

    def test_alone(self) -> None:
        with process("cpu") as place:
            assert (place.rank, place.count, place.device.type) == (0, 1, "cpu")
            assert place.first
            model = torch.nn.Linear(1, 1)
            assert place.share(model) is model
            values = torch.tensor([1.0, 2.0])
            assert place.mean(values) is values

    def test_no_such_device(self) -> None:
        with (
            pytest.raises(InputError, match="no device 'tpu'; expected auto, cpu or cuda"),
            process("tpu"),
        ):
            pass

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self) -> None:
        with process("auto") as place:
            assert place.device.type == "cpu"
        with (
            pytest.raises(UnavailableError, match="sees no GPU; give --device cpu"),
            process("cuda"),
        ):
            pass

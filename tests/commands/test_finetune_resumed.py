"""`finetune --resume`: the state beside the output, and what is no state of this run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from ltmp_export.training import state
from ltmp_export.training.record import Record
from tests.makers.finetuned import SETTINGS, learn
from tests.makers.interruptions import LostError, stop_after


class TestResume:
    @pytest.mark.parametrize("train_all", [None, 1e-3], ids=["thresholds", "everything"])
    @pytest.mark.parametrize("step", [2, 4, 8])
    def test_bit_for_bit(self, here: Path, train_all: float | None, step: int) -> None:
        """At the end of an epoch, inside one, after the last step: the files are the same."""
        settings = replace(SETTINGS, train_all=train_all)
        learn("whole.pth.tar", settings=settings)
        with pytest.raises(LostError):
            learn(settings=settings, save_every=2, watch=stop_after(step))
        assert not (here / "out.pth.tar").exists()
        resumed: list[Record] = []
        learn(settings=settings, resume=True, watch=lambda record, total: resumed.append(record))
        done = {2: 3, 4: 4, 8: 9}[step]  # saved after every second step and every epoch of three
        assert len(resumed) == 9 - done
        for name in ("pth.tar", "pth.tar.csv"):
            whole, out = (here / f"{start}.{name}" for start in ("whole", "out"))
            assert whole.read_bytes() == out.read_bytes()
        assert not state.beside(here / "out.pth.tar").exists()

    def test_without_resume_the_state_is_not_lost(self, here: Path) -> None:
        with pytest.raises(LostError):
            learn(save_every=2, watch=stop_after(4))
        kept = state.beside(here / "out.pth.tar").read_bytes()
        with pytest.raises(InputError, match=r"out.pth.tar.state is there, .* \(--resume\)"):
            learn()
        assert state.beside(here / "out.pth.tar").read_bytes() == kept

    def test_nothing_to_resume(self, here: Path) -> None:
        with pytest.raises(
            InputError, match="out.pth.tar.state does not exist; expected the state"
        ):
            learn(resume=True)

    def test_of_another_run(self, here: Path) -> None:
        with pytest.raises(LostError):
            learn(save_every=2, watch=stop_after(4))
        other = replace(SETTINGS, tau=0.2)
        with pytest.raises(InputError, match="is of a run with tau 0.1, not 0.2; resume it as"):
            learn(settings=other, resume=True)

    def test_of_another_model(self, here: Path) -> None:
        """The same file read otherwise: other heads, another normalisation."""
        with pytest.raises(LostError):
            learn(save_every=2, watch=stop_after(4))
        for other in (Choices(num_heads=4, mean=(0.5,), std=(0.5,)), Choices(num_heads=2)):
            with pytest.raises(InputError, match="is of a run with (model|preprocessing) {.*not {"):
                learn(choices=other, resume=True)

    TAMPERED: ClassVar[dict[str, Callable[[dict[str, torch.Tensor]], object]]] = {
        "one threshold for all": lambda t: t.update({"thresholds.merge": torch.tensor([0.5])}),
        "outside": lambda t: t["history"][-1, 7:].fill_(7.0),
        "not its last": lambda t: t["thresholds.merge"].fill_(0.3),
        "NaN": lambda t: t["history"][-1, 7:].fill_(float("nan")),
        "doubled": lambda t: t.update(history=t["history"].repeat(5, 1)),
        "no steps": lambda t: t.update(history=t["history"][:0]),
        "no moments": lambda t: t.pop("adamw.3.exp_avg"),
        "moments of another shape": lambda t: t.update({"adamw.3.exp_avg": torch.zeros(1)}),
    }

    @pytest.mark.parametrize("tamper", TAMPERED.values(), ids=list(TAMPERED))
    def test_tampered_with(
        self, here: Path, tamper: Callable[[dict[str, torch.Tensor]], object]
    ) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        settings = replace(SETTINGS, train_all=1e-4)
        with pytest.raises(LostError):
            learn(settings=settings, save_every=2, watch=stop_after(4))
        path = state.beside(here / "out.pth.tar")
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tamper(tensors)
        save_file(tensors, path, metadata)
        with pytest.raises(InputError, match=r"state is not of this model \(.*without --resume"):
            learn(settings=settings, resume=True)

    @pytest.mark.parametrize("damage", ["empty", "cut", "text", "other"])
    def test_damaged(self, here: Path, damage: str) -> None:
        with pytest.raises(LostError):
            learn(save_every=2, watch=stop_after(4))
        path = state.beside(here / "out.pth.tar")
        content = path.read_bytes()
        from safetensors.torch import save

        path.write_bytes({
            "empty": b"", "cut": content[: len(content) // 2], "text": b"nothing of the kind",
            "other": save({"x": torch.zeros(1)}),
        }[damage])  # fmt: skip
        with pytest.raises(InputError, match=r"out.pth.tar.state is (empty|no state of a run)"):
            learn(resume=True)

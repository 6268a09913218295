"""How to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ltmp_export.errors import InputError

ROUNDS = 10
WARMUP = 10
Scenario: TypeAlias = Literal["single-stream", "offline"]
OFFLINE_SIZES = (1, 8, 32)
MOST_THREADS = 4096
AUTO: Final = "auto"


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        batch_sizes: Images per run, one row of figures for each; by default 1, and 1, 8 and 32
            in the scenario "offline".
        threads: Threads of an operator; all processors by default, "auto" for as many as are best
            for the model, which is tried before.
        warmup: Runs before the first counted one, spread over images of few and many tokens.
        iterations: Rounds: counted runs of every image at each batch size.
        providers: onnxruntime's execution providers, by exact or short name; the first must run.
        scenario: "single-stream" for one image after the other, "offline" for throughput.
        profile: Also take the time of each operator and block.
        roofline: Also time the matrix products of the linear layers alone.
    """

    batch_sizes: tuple[int, ...] | None = None
    threads: int | Literal["auto"] | None = None
    warmup: int = WARMUP
    iterations: int = ROUNDS
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    scenario: Scenario | None = None
    profile: bool = False
    roofline: bool = False

    def __post_init__(self) -> None:
        least = {"batch size": min(self.sizes, default=0), "iterations": self.iterations}
        if isinstance(self.threads, str) and self.threads != AUTO:
            raise InputError(f"threads {self.threads!r}; expected a number, or {AUTO}")
        least["threads"] = 1 if self.stated_threads is None else self.stated_threads
        if least["threads"] > MOST_THREADS:
            raise InputError(f"threads is {self.threads}; expected at most {MOST_THREADS}")
        for what, value in least.items():
            if value < 1:
                raise InputError(f"{what} is {value}; expected at least 1")
        if len(set(self.sizes)) < len(self.sizes):
            raise InputError(f"batch sizes {list(self.sizes)}: one is there twice")
        if self.warmup < 0:
            raise InputError(f"warmup is {self.warmup}; expected 0 or more")
        if not self.providers:
            raise InputError("no execution provider given; expected one, like cpu")
        if self.scenario not in (None, "single-stream", "offline"):
            raise InputError(f"no scenario {self.scenario!r}; choose single-stream or offline")
        if self.scenario == "single-stream" and self.sizes != (1,):
            given = ",".join(map(str, self.sizes))
            raise InputError(f"single-stream is one image at a time; drop the batch sizes {given}")

    @property
    def stated_threads(self) -> int | None:
        """Threads where a number is stated."""
        return None if isinstance(self.threads, str) else self.threads

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes to time."""
        if self.batch_sizes is not None:
            return self.batch_sizes
        return OFFLINE_SIZES if self.scenario == "offline" else (1,)

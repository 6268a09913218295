"""What a bench prints and draws, from made-up samples."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console, RenderableType

from ltmp_export import reports
from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.reports import plots
from ltmp_export.timing.contenders import DENSE, DENSE_INT8, EAGER, GEMMS, LITERAL, REDUCED
from ltmp_export.timing.profiling import Profile, Share
from ltmp_export.timing.regression import compare
from ltmp_export.timing.report import Entry, Tried
from tests.makers.benched import made_report, steady

SAMPLES = {
    (REDUCED, 1): [[1.0, 2.0, 3.0], [1.1, 2.2, 3.3]],
    (DENSE, 1): [[8.0, 8.0, 8.0], [8.8, 8.8, 8.8]],
}


def printed(part: RenderableType, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_table() -> None:
    lines = printed(reports.bench_summary(made_report(SAMPLES)))
    assert lines[:3] == [
        "batch  model    GMACs  tokens  best ms  p50   p90   p99  images/s  speed-up  efficiency",
        "1      reduced      2    20.0        2  2.1  3.15  3.28     500.0     4.00x        200%",
        "1      dense        4      40        8  8.4   8.8   8.8     125.0",
    ]
    assert lines[3:6] == [
        "batch  model    images differ by  runs by  GFLOP/s  peak MB",
        "1      reduced      -40% to +40%    ±4.8%     2000        –",
        "1      dense          +0% to +0%    ±4.8%     1000        –",
    ]
    assert lines[-2:] == [
        "50.0% of the dense multiply-accumulates: 2.00x would be ideal",
        "3 images (made up), CPUExecutionProvider, 2 threads, best of 2 rounds",
    ]


def test_a_narrow_terminal_shows_the_models_and_no_rate() -> None:
    """Else the column of the models is what gives way."""
    lines = printed(reports.bench_summary(made_report(SAMPLES)), width=80)
    assert lines[:3] == [
        "batch  model    GMACs  tokens  best ms  p50   p90   p99  speed-up  efficiency",
        "1      reduced      2    20.0        2  2.1  3.15  3.28     4.00x        200%",
        "1      dense        4      40        8  8.4   8.8   8.8",
    ]


def test_threads_that_were_tried() -> None:
    times = {(REDUCED, 1): 2.0, (REDUCED, 2): 3.0, (DENSE, 1): 5.0, (DENSE, 2): 4.0}
    tried = tuple(Tried(model, 1, count, best) for (model, count), best in times.items())
    report = made_report(SAMPLES, threads=1, threads_tried=tried)
    lines = printed(reports.bench_summary(report))
    assert lines[:4] == [
        "batch  ms with  1 thread  2 threads",
        "1      reduced         2          3",
        "1      dense           5          4",
        "best for this model: 1 thread, as timed here; best for dense: 2 threads",
    ]
    assert "1 thread, best of 2 rounds" in lines[-1]


def test_nodes_on_several_providers_are_told() -> None:
    placement = {"CUDAExecutionProvider": 700, "CPUExecutionProvider": 25}
    lines = printed(reports.bench_summary(made_report(SAMPLES, placement=placement)))
    assert "nodes run by: CUDAExecutionProvider 700, CPUExecutionProvider 25" in lines


def test_text_plot() -> None:
    assert printed(plots.tokens_plot(made_report(SAMPLES))) == [
        "tokens kept  images  best ms",
        "10 to 14          1        1  #####",
        "18 to 22          1        2  ##########",
        "30 to 34          1        3  ###############",
        "40 (dense)        3        8  ########################################",
    ]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([5.0, 5.0], [(5, 6, [0, 1])]),
        ([5.0, 5.9, 6.0], [(5, 6, [0, 1]), (6, 7, [2])]),
        ([1.0, 13.0], [(1, 3, [0]), (11, 13, [1])]),
        ([1.5, 100.0], [(1, 18, [0]), (86, 103, [1])]),
    ],
)
def test_bins(tokens: Sequence[float], expected: list[tuple[float, float, list[int]]]) -> None:
    found = [(low, high, list(index)) for low, high, index in plots.bins(np.array(tokens), 6)]
    assert found == expected


def test_compact_and_without_batch_one() -> None:
    report = made_report(SAMPLES)
    short = printed(reports.bench_summary(report, compact=True))
    assert not any("differ by" in line or "###" in line for line in short)
    eight = made_report({(model, 8): rows for (model, _), rows in SAMPLES.items()})
    assert not any("###" in line for line in printed(reports.bench_summary(eight)))


def test_offline_is_about_throughput() -> None:
    lines = printed(reports.bench_summary(made_report(SAMPLES, scenario="offline")))
    assert lines[0].split()[4:] == [
        *("images/s", "ms", "per", "image", "ms", "per", "batch", "speed-up", "efficiency")
    ]


def test_side_by_side_is_one_table_with_reasons() -> None:
    report = made_report(SAMPLES | {(EAGER, 1): [[4.0] * 3]})
    entries = [replace(entry, peak_mb=99.6, agreement=1.0) for entry in report.entries]
    missing = Entry(LITERAL, "", "No module named 'onnxscript'")
    lines = printed(reports.bench_summary(replace(report, entries=(*entries, missing))))
    assert lines[1].split()[1:4] == ["m.onnx", "onnxruntime", "1.31.1"]
    assert lines[1].split()[4:] == ["2", "2.1", "3.15", "1.00x", "100%", "100"]
    assert lines[3].split()[-4:] == ["4", "2.00x", "100%", "100"]
    assert lines[4].split()[:3] == ["–", "literal", "export"]
    assert lines[5] == "literal export: not timed: No module named 'onnxscript'"
    assert max(map(len, lines[:5])) <= 100


def test_precisions_are_one_table() -> None:
    times = {"reduced fp16": 3.0, "reduced int8": 1.0, DENSE_INT8: 4.0}
    samples = SAMPLES | {(label, 1): [[time] * 3] for label, time in times.items()}
    report = made_report(samples, accuracy=0.5, calibration="photos/, 9 images")
    entries = [replace(e, bytes=22_300_000, accuracy=2 / 3) for e in report.entries]
    report = replace(report, entries=(*entries, Entry("reduced fp32", "", "died")))
    assert printed(reports.bench_summary(report))[:7] == [
        "batch  model                     best ms  p50  vs dense fp32  vs dense int8    MB  top-1",
        "1      reduced fp32 (this file)        2  2.1          0.25x          0.50x  22.3  66.7%",
        "1      reduced fp16                    3    3          0.38x          0.75x  22.3  66.7%",
        "1      reduced int8                    1    1          0.12x          0.25x  22.3  66.7%",
        "1      dense fp32                      8  8.4          1.00x          2.00x  22.3  66.7%",
        "1      dense int8                      4    4          0.50x          1.00x  22.3  66.7%",
        "–      reduced fp32                    –    –              –              –     –      –",
    ]
    told = "int8 beside this file is calibrated on photos/, 9 images"
    assert told in printed(reports.bench_summary(report))
    unlabelled = replace(report, accuracy=None)
    assert "agrees" in printed(reports.bench_summary(unlabelled))[0]


def test_roofline_and_profile() -> None:
    gemm = Share("Gemm", 25, 1.5, 0.75)
    profile = Profile(16, (gemm,), (replace(gemm, name="block_00"),))
    report = made_report(SAMPLES | {(GEMMS, 1): [[1.5] * 3]}, profile=profile)
    text = "\n".join(printed(reports.bench_summary(report)))
    assert "operator  calls   ms  share\nGemm         25  1.5  75.0%" in text
    assert "block_00     25  1.5  75.0%" in text
    assert "batch 1: 2000 GFLOP/s; its linear layers alone take 1.5 ms, at 2000 GFLOP/s" in text


@pytest.mark.parametrize(
    ("time", "verdict", "line"),
    [
        (5.0, "same", "no regression beyond 5%"),
        (6.0, "slower", "regression at 1 of 1 batch sizes, beyond 5% and noise"),
    ],
)
def test_comparison(time: float, verdict: str, line: str) -> None:
    old = made_report(steady(5.0, 8.0)).to_json()
    changes = compare(old, made_report(steady(time, 8.0)), 0.05)
    lines = printed(reports.compare_summary(changes))
    assert lines[1].split()[:4] == ["1", "time", "/", "dense"]
    assert lines[1].endswith(verdict)
    assert lines[2] == line


def test_noise_that_hides_a_regression_is_told() -> None:
    noisy = steady(5.0, 8.0)
    noisy[REDUCED, 1] = [[time] * 3 for time in (4.0, 5.0, 6.0, 5.0, 4.5) * 2]
    lines = printed(
        reports.compare_summary(compare(made_report(noisy).to_json(), made_report(noisy), 0.05))
    )
    assert lines[-1].startswith("no regression beyond 5%; noise would hide one of 5%: more --iter")


PNG, SVG = Path("b.png"), Path("B.SVG")


def png_size(content: bytes) -> tuple[int, int]:
    assert content.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def test_png_has_a_panel_for_each_batch() -> None:
    pytest.importorskip("matplotlib")
    one = made_report(SAMPLES)
    batches = {(model, 2): [[2.0, 3.0]] for model in (REDUCED, DENSE)}
    two = made_report(SAMPLES | batches)
    sizes = [png_size(reports.bench_plot(report, PNG)) for report in (one, two)]
    assert sizes[1][0] > 1.5 * sizes[0][0]
    png_size(reports.bench_plot(made_report({(REDUCED, 1): [[1.0, 2.0, 3.0]]}), PNG))


def test_svg_has_units_and_no_formulas() -> None:
    """Texts are texts, those of names as they are; the same report gives the same bytes."""
    pytest.importorskip("matplotlib")
    report = replace(made_report(SAMPLES), model="$x$ <b>&\x1b.onnx")
    content = reports.bench_plot(report, SVG)
    assert content == reports.bench_plot(report, SVG)
    tree = ElementTree.fromstring(content)
    texts = ["".join(text.itertext()) for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("$x$ <b>&?.onnx: ") for text in texts)
    assert {"time per image (ms), best of the rounds", "tokens kept (mean over the blocks)"} <= {
        *texts
    }


def test_plots_are_svg_or_png() -> None:
    for name in ("b.jpg", "b", "b.svg.gz"):
        with pytest.raises(InputError, match=r"expected a name that ends in \.svg or \.png"):
            reports.require_plot(Path(name))


def test_png_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(UnavailableError, match="--plot needs matplotlib"):
        reports.require_plot(PNG)

"""Command lines as hypothesis strategies: what people type, and what nobody should.

By construction none of them computes for long: `export` does not check, `check` takes a few images,
`bench` and `demo` always have something to object to.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from hypothesis import strategies as st

# Files of the folder that commands run in, see `test_fuzz.py`.
CHECKPOINT, MODEL, IMAGES, BASE, THRESHOLDS = "c.pt", "m.onnx", "i.npz", "base.pt", "t.pt"
INPUTS = (CHECKPOINT, MODEL, IMAGES, BASE, THRESHOLDS)

_ALPHABET = (
    string.ascii_letters
    + "0 .,:-_=[]{}()'\"\\%$*?~éß漢\u202e\u200b\n\t\r\x07\x1b\x7f\x9b\udcff\udc80"
)
names = st.one_of(
    st.text(_ALPHABET, min_size=1, max_size=12).filter(lambda n: n.strip(".") and n[0] != "~"),
    st.sampled_from(
        ("missing.pt", "c.p", "a" * 250, "b" * 5000, "dir", "dir/x", "loop", "gone", "fifo")
    ),
    st.sampled_from(("", ".", "..", "c.pt/x", "/dev/null", "/dev/zero", "/proc/self/mem", "dir/")),
)
files = st.one_of(st.sampled_from(INPUTS), names)
outputs = st.one_of(st.sampled_from(("out", "dir/out", *INPUTS)), names)
counts = st.sampled_from(
    (
        "0",
        "1",
        "2",
        "-1",
        "",
        "x",
        "1.5",
        "nan",
        "1e3",
        "٣",
        " 1",
        "9" * 30,
        "9" * 5000,
        "0x1",
        "True",
    )
)
lists = st.one_of(
    counts,
    st.sampled_from(
        ("1,2", ",", "1,,2", "1,1", "4,4", "8", "8,8", "8,4,2", "0,0", "-8,8", "1,2,3,")
    ),
)
reals = st.sampled_from(
    ("0.5", "0.5,0.5,0.5", "nan", "inf", "-inf,1", "1e999", "", ",", "x", "0", "-1")
)
words = st.one_of(
    st.sampled_from(
        (
            "ltmp",
            "ltm",
            "ltpm",
            "LTMP",
            "m",
            "pm",
            "patchmerger",
            "deit_tiny_patch16_224",
            "resnet18",
            "vit",
        )
    ),
    st.text(_ALPHABET, max_size=8),
)
_CHOICES: dict[str, st.SearchStrategy[str] | None] = {
    "--family": words,
    "--model": words,
    "-m": words,
    "--base-checkpoint": st.one_of(files, st.sampled_from(("timm:", "timm:nothing", "timm:vit.x"))),
    "--use-ema": None,
    "--no-ema": None,
    "--num-heads": counts,
    "--img-size": lists,
    "--mean": reals,
    "--std": reals,
}
rates = st.one_of(
    lists, st.sampled_from(("1,1", "16:-1", "2:1", "1:", ":", "1:nan", "1:-inf", "1:1e999", "3:9"))
)
_RATES: dict[str, st.SearchStrategy[str] | None] = {
    "--r": rates,
    "--reduction-target": reals,
    "--merge-at": lists,
    "--merge-scale": st.sampled_from(("one", "sqrt", "two", "")),
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[str] | None]] = {
    "export": {
        **_CHOICES,
        **_RATES,
        "--mode": st.sampled_from(("static", "dynamic", "", "statik")),
        "--keep-tokens": st.one_of(rates, st.sampled_from(("auto:p99", "auto:max", "auto:p0"))),
        "--images": files,
        "--samples": counts,
        **dict.fromkeys(("-o", "--output", "--json"), outputs),
        **dict.fromkeys(("--opset", "--batch-size", "-b"), counts),
        "--token-counts": None,
    },
    "check": {
        **_CHOICES,
        **_RATES,
        **dict.fromkeys(("--json", "--junit", "--save-repro"), outputs),
        **dict.fromkeys(("--images", "--repro"), files),
        "--batch-size": lists,
        "--samples": counts,
        "--strict": None,
    },
    "inspect": {**_CHOICES, **_RATES, "--images": files, "--samples": counts, "--json": None},
    "bench": {
        **dict.fromkeys(("--images", "--baseline", "--compare"), files),
        **dict.fromkeys(("--side-by-side", "--precisions"), files),
        **dict.fromkeys(("--samples", "--warmup", "--iterations"), counts),
        "--threads": st.one_of(counts, st.just("auto")),
        **dict.fromkeys(("--plot", "--json"), outputs),
        **dict.fromkeys(("--providers", "--scenario"), words),
        **dict.fromkeys(("--roofline", "--profile"), None),
        "--base-checkpoint": files,
        "--batch-size": lists,
        "--max-regression": reals,
    },
    "finetune": {
        **_CHOICES,
        **_RATES,
        **dict.fromkeys(("-o", "--output", "--json"), outputs),
        **dict.fromkeys(("--data", "--val", "--class-map"), files),
        **dict.fromkeys(("--epochs", "--batch-size", "--accumulate", "--save-every"), counts),
        **dict.fromkeys(("--seed",), counts),
        **dict.fromkeys(("--reduction-target", "--lr-merge", "--lr-prune", "--tau"), reals),
        **dict.fromkeys(("--keep-rate", "--compression-ratio", "--lr", "--distil"), reals),
        **dict.fromkeys(("--start-merge", "--train-all", "--held-out", "--budget-weight"), reals),
        **dict.fromkeys(("--device", "--precision", "--augment", "--name"), words),
        **dict.fromkeys(("--paper", "--resume"), None),
    },
    "calibrate": {
        **_CHOICES,
        **dict.fromkeys(("-o", "--output", "--json", "--plot"), outputs),
        **dict.fromkeys(("--images", "--class-map"), files),
        **dict.fromkeys(("--samples", "--seed"), counts),
        **dict.fromkeys(("--reduction-target", "--sweep"), reals),
        **dict.fromkeys(("--split", "--schedule", "--method", "--device"), words),
    },
    "eval": {
        **_CHOICES,
        **_RATES,
        **dict.fromkeys(("--data", "--class-map"), files),
        **dict.fromkeys(("--samples", "--batch-size", "--threads"), counts),
        "--providers": words,
        "--json": outputs,
    },
    "show": {
        **dict.fromkeys(("--images", "--side-by-side"), files),
        **dict.fromkeys(("--samples", "--threads", "--size"), counts),
        **dict.fromkeys(("--grid", "--apart"), None),
        "--blocks": lists,
        "--json": outputs,
    },
    "report": {
        **_CHOICES,
        **_RATES,
        **dict.fromkeys(("-o", "--output"), outputs),
        "--images": files,
        **dict.fromkeys(("--samples", "--threads"), counts),
        "--bench": None,
    },
    "demo": {"--quick": None},
}
_POSITIONAL = {"check": 2, "report": 2}
_WRITES = {
    "export": "model.onnx",
    "calibrate": "calibrated.pth.tar",
    "finetune": "finetuned.pth.tar",
    "report": "report.html",
}
_ENDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "export": (("--no-check",),),
    "check": (("--samples", "1"), ("--batch-size", "1")),
    "bench": (("--warmup", "-1"),),
    "finetune": (("--epochs", "1"), ("-b", "1")),
    "show": (("--size", "1"),),
    "report": (("--samples", "0"),),
    "demo": (("one", "two"),),
}
_TOP = (
    ("--memory-limit", counts),
    ("--memory-limit", reals),
    ("--version", None),
    ("--help", None),
)


@dataclass(frozen=True)
class CommandLine:
    """Arguments, and the files that they ask to be written."""

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]


@st.composite
def command_lines(draw: st.DrawFn) -> CommandLine:
    """A command with files, options, and perhaps a slip."""
    command = draw(st.sampled_from(("export", *OPTIONS)))
    right = {"check": [MODEL, CHECKPOINT], "bench": [MODEL], "show": [MODEL]}
    right["finetune"] = [CHECKPOINT, "--data", IMAGES, "--reduction-target", "0.5"]
    right["calibrate"] = [CHECKPOINT, "--images", IMAGES, "--reduction-target", "0.9"]
    right["eval"] = [draw(st.sampled_from((CHECKPOINT, MODEL))), "--data", IMAGES]
    given = right.get(command, [CHECKPOINT])
    if draw(st.integers(0, 2)) == 0:
        count = draw(st.integers(0, _POSITIONAL.get(command, 1) + 1))
        given = [draw(files) for _ in range(count)]
    arguments, written = (
        list(given),
        [*_beside(command, _WRITES[command])] if command in _WRITES else [],
    )
    known = OPTIONS[command]
    for flag in draw(st.lists(st.sampled_from(sorted(known)), max_size=4)) if known else ():
        values = known[flag]
        arguments.append(flag)
        if values is not None:
            arguments.append(draw(values))
        if values is outputs:
            written += _beside(command, arguments[-1])
    for end in _ENDS.get(command, ()):
        arguments += () if end[0] in arguments and command == "check" else end
    if draw(st.integers(0, 3)) == 0:
        arguments = draw(slips(arguments))
    before: list[str] = []
    if draw(st.integers(0, 5)) == 0:
        flag, values = draw(st.sampled_from(_TOP))
        before = [flag] if values is None else [flag, draw(values)]
    name = draw(st.sampled_from((command,) * 19 + (command[:-1],)))
    return CommandLine((*before, name, *arguments), tuple(written))


def _beside(command: str, output: str) -> list[str]:
    """The files that come with one that is asked for."""
    more = (".csv", ".state") if command == "finetune" else ()
    return [output, *(output + end for end in more)]


@st.composite
def slips(draw: st.DrawFn, arguments: list[str]) -> list[str]:
    """One argument lost, doubled, misspelt or unknown; those that keep it short stay at the end."""
    made = list(arguments)
    at = draw(st.integers(0, len(made)))
    extra = draw(
        st.sampled_from(
            ("--", "-", "--nonsense", "--jso", "-x", "--json=", "--no-strict", "--help")
        )
    )
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return [*made[:at], extra, *made[at:]]
    if kind == 1 and at < len(made) and made[at].startswith("--") and made[at] != "--no-check":
        made[at] = made[at][:-1]
        return made
    return [*made[:at], draw(names), *made[at:]]

"""What every plot has in common: SVG or PNG by the file's ending, and safe colours and texts."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ltmp_export.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # see `drawing.colours`
_CYCLE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#F0E442")
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "ltmp"}  # texts stay texts; ids are the same


def require_plot(path: Path) -> None:
    """Check before the work that a plot can be drawn to a file of that name.

    Raises:
        InputError: It ends in neither .svg nor .png.
        UnavailableError: matplotlib is not installed.
    """
    if path.suffix.lower() not in KINDS:
        raise InputError(f"--plot {path}: expected a name that ends in {' or '.join(KINDS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UnavailableError("--plot needs matplotlib; install it, or ltmp with the extra 'plot'")


@contextmanager
def drawn(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, in colours that people with any colour vision tell apart."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=_CYCLE)}):
        yield Figure(figsize=(width, height), dpi=120, layout="constrained")


def entitle(figure: Figure, title: str) -> None:
    """Give it a title that holds names of files, which may be anything: no formulas in it."""
    plain = "".join(c if c.isprintable() else "?" for c in title)
    figure.suptitle(plain, parse_math=False)


def written(figure: Figure, path: Path) -> bytes:
    """Its bytes, in the form that a file of that name has; the same for the same figure."""
    content, kind = io.BytesIO(), path.suffix.lower().removeprefix(".")
    figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()

"""Options that several commands share; those about the checkpoint stand in `stated`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ltmp_export import families

from .stated import UNSTATED

IMAGES, RUNNING, NEIGHBOURS = "Images", "Running", "Nearest neighbours"  # panels of --help

Source = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A plain ViT or a fine-tuned checkpoint; or timm:NAME."
    ),
]
Learned = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(families.learned())} (default: the checkpoint's own, else ltmp)."
    ),
]
Reduced = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(families.learned())} (default: the checkpoint's own, else ltmp); "
        "with a latency target also one of m, topk and others without thresholds."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        help="What to call the model, where neither file nor timm does.", rich_help_panel=UNSTATED
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder of pictures, .tar shards, parquet or .npz (default: embedded or synthetic)."
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Class folders' names in the order of the classes, a line each.",
        rich_help_panel=IMAGES,
    ),
]
ClassOrder = Annotated[
    Literal["natural", "string"] | None,
    typer.Option(
        help="Class folders in natural order (2 before 10: timm's) or string order (10 before 2: "
        "torchvision's).",
        rich_help_panel=IMAGES,
    ),
]
Knn = Annotated[
    int | None,
    typer.Option(
        help="Without a classifier: nearest neighbours that vote for a class (default: 20).",
        rich_help_panel=NEIGHBOURS,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.", rich_help_panel=RUNNING)]
Workers = Annotated[
    int,
    typer.Option(help="Processes that read images beside this one.", rich_help_panel=RUNNING),
]
Working = Annotated[
    int,
    typer.Option(
        help="Processes that read images beside this one; with --engine ray: that compute "
        "(default: as many as there are processors).",
        rich_help_panel=RUNNING,
    ),
]
Computing = Annotated[
    int,
    typer.Option(
        help="With --engine ray: processes that compute (default: as many as there are "
        "processors).",
        rich_help_panel=RUNNING,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Here, or in processes of a Ray cluster: the same figures.", rich_help_panel=RUNNING
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of a Ray cluster (default: RAY_ADDRESS, else one of this machine is started).",
        rich_help_panel=RUNNING,
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of an operator (default: all processors).")
]
Json = Annotated[Path | None, typer.Option(help="Write a JSON report to this file.")]

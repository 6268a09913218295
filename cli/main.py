"""The command line of `ltmp`. Nothing heavy is imported before it is used.

Exit codes: 0 done; 1 a check or comparison failed; 2 bad usage or bad input; 3 the export itself
failed; 4 an optional dependency or execution provider is missing; 130 interrupted.
Results go to stdout, progress and warnings to stderr.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .bench import bench
from .calibrate import calibrate
from .check import check
from .compare import compare
from .demo import demo
from .eval import evaluate
from .export import export
from .finetune import finetune
from .inputs import inputs
from .inspect import inspect
from .models import models
from .report import report
from .runtimes import runtimes
from .serve_config import serve_config
from .show import show
from .terminal import reporting_errors
from .web import web


class _Commands(TyperGroup):
    """Shows the help of a command before options are parsed, which imports what checks them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        name, *others = args or [""]
        if others[-1:] == ["--help"] and "--" not in others and name in self.commands:
            self.commands[name].make_context(name, ["--help"], parent=ctx)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="ltmp",
    cls=_Commands,
    help="Take token-reducing Vision Transformers (LTMP, ToMe and kin) from a timm model or a "
    "checkpoint to a checked ONNX model.",
    epilog="Start with: ltmp demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"ltmp {version('ltmp')}")
        raise typer.Exit


@app.callback()
@reporting_errors
def _top(
    context: typer.Context,
    memory_limit: Annotated[
        float, typer.Option(help="GiB that the weights or images of one file may take in memory.")
    ] = 8.0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that hold for every command."""
    from ltmp_export.files import memory

    context.with_resource(memory.memory_limit(memory_limit))


app.command("export")(reporting_errors(export))
app.command("check")(reporting_errors(check))
app.command("inputs")(reporting_errors(inputs))
app.command("bench")(reporting_errors(bench))
app.command("inspect")(reporting_errors(inspect))
app.command("show")(reporting_errors(show))
app.command("report")(reporting_errors(report))
app.command("web")(reporting_errors(web))
app.command("serve-config")(reporting_errors(serve_config))
app.command("models")(reporting_errors(models))
app.command("runtimes")(reporting_errors(runtimes))
app.command("compare")(reporting_errors(compare))
app.command("finetune")(reporting_errors(finetune))
app.command("calibrate")(reporting_errors(calibrate))
app.command("eval")(reporting_errors(evaluate))
app.command("demo")(reporting_errors(demo))

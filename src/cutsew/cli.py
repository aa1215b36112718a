"""The command line: `cutsew <stage> ...`, each stage's module loaded only when it is called."""

import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from cutsew.errors import UserError, did_you_mean, headed, in_one_line, in_the_way
from cutsew.pipeline.graph import STAGES
from cutsew.runtime.lazy_imports import gc_frozen
from cutsew.runtime.processes import exit_with_owner

COMMANDS = [name for name, stage in STAGES.items() if stage.command is None]
"""Commands that rules call; each is a module of cutsew.stages."""

TOOLS = {
    "init": "Look at a folder of images and write a config file for it.",
    "run": "Run the workflow: labels, classifier and report of a folder.",
    "verify": "Check every file of a run against its recorded digest.",
    "why": "Show an artifact's provenance, back to the input images.",
    "audit": "Show where labels come from: per stage, per image or per class.",
    "labels": "Export a run's labels for Label Studio, CVAT, FiftyOne, datasets and other tools.",
    "next": "List the images whose labels to check first.",
    "export": "Export a run's student as standalone ONNX and safetensors files.",
    "diff_runs": "Compare two runs on the same images, with confidence intervals.",
    "compare_published": "Compare a run's metrics with published ones of the same protocol.",
    "check_dataset": "Check that a benchmark copy is complete.",
    "gc": "List the results that no configured run refers to; delete them with --yes.",
}
"""Commands that no rule calls, and their lines of help; each is a module of cutsew.commands."""

FOR_PEOPLE = ("init", "run", "predict", *(name for name in TOOLS if name not in ("init", "run")))
"""Commands that users type; help lists them apart from those that only rules call."""


class PassThroughCommand(typer.core.TyperCommand):
    """A command that keeps what follows `--` for another program, as `words` of its context's `meta`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what stands before `--`."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["words"] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the pieces of the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- SNAKEMAKE OPTIONS]"]


def _command(name: str, function: Callable[..., None], summary: str | None) -> Any:  # noqa: ANN401
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    kind = PassThroughCommand if name == "run" else None
    app.command(name=name, help=summary, short_help=summary, cls=kind)(function)
    return get_command(app)


class StageGroup(typer.core.TyperGroup):
    """The commands: those that users type, then one per stage. Listing them imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        """Return the commands that users type, then the stages in the order of the pipeline."""
        return [*FOR_PEOPLE, *(name for name in COMMANDS if name not in FOR_PEOPLE)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the two groups of commands under headings of their own."""
        names = self.list_commands(ctx)
        for title, chosen in (
            ("Commands", names[: len(FOR_PEOPLE)]),
            ("Stages (called by the workflow's rules)", names[len(FOR_PEOPLE) :]),
        ):
            limit = formatter.width - 6 - max(map(len, names))
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.get_command(ctx, name).get_short_help_str(limit)) for name in chosen],
                    col_max=max(map(len, names)),
                )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find the command that is called; hint at the ones that a mistyped name resembles."""
        names = self.list_commands(ctx)
        if args[0].replace("-", "_") not in names:
            hint = did_you_mean(args[0].replace("-", "_"), names)
            ctx.fail(f"No such command {args[0]!r}{hint and f'; {hint}'}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        """Load the command that is called; for a listing, return a placeholder with its line of help."""
        name = cmd_name.replace("-", "_")
        if name not in COMMANDS and name not in TOOLS:
            return None
        if cmd_name not in sys.argv:
            return _command(cmd_name, lambda: None, STAGES[name].summary if name in STAGES else TOOLS[name])
        with gc_frozen():
            module = importlib.import_module(f"cutsew.{'stages' if name in STAGES else 'commands'}.{name}")
        return _command(cmd_name, getattr(module, name), None)


app = typer.Typer(
    cls=StageGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help starts in half the time
    pretty_exceptions_enable=False,
    help="Multi-label pseudo-labels and a classifier from unlabeled images: cutsew run PHOTOS --classes cat,dog,person",
)


def _print_version(requested: bool) -> None:
    if requested:
        from cutsew import __version__

        typer.echo(f"cutsew {__version__}")
        raise typer.Exit


@app.callback()
def options(
    log: Annotated[Path | None, typer.Option(help="Also write log messages to this file.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Set up logging, and exit with the workflow if it started this process."""
    exit_with_owner()
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    logging.raiseExceptions = False  # on a full disk the stage's own output reports the error
    if log is not None:
        # A worker of a distributed training appends to the log of the first process.
        worker = os.environ.get("RANK", "0") != "0"
        handlers.append(_log_file(log, "a" if worker else "w"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def _log_file(path: Path, mode: str) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return logging.FileHandler(path, mode=mode, encoding="utf-8")
    except OSError as error:
        if line := in_the_way(error):
            raise UserError(f"--log: {line}") from None
        raise UserError(f"--log: {path} cannot be written ({error.strerror}); choose another file") from None


def main() -> None:
    """Run the command line; invalid input prints one line and exits with status 1."""
    try:
        app()
    except Exception as error:
        reason = in_one_line(error)
        if reason is None:
            raise
        logging.getLogger("cutsew").error("%s", headed(reason))
        sys.exit(1)

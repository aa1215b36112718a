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

from cutsew.errors import UserError, in_one_line
from cutsew.pipeline.graph import STAGES
from cutsew.runtime.lazy_imports import gc_frozen
from cutsew.runtime.processes import end_with_owner

COMMANDS = [name for name, stage in STAGES.items() if stage.command is None]
"""Commands that rules call; each is a module of cutsew.stages."""

TOOLS = {
    "verify": "Check that a run's artefacts are as they were made.",
    "why": "Tell what an artefact was made from, up to the photos.",
    "export": "Write a run's student as ONNX and as safetensors that need nothing else.",
    "audit": "Tell where each label comes from: stages, a photo, a class.",
    "labels": "Write a run's labels for Label Studio, CVAT, FiftyOne, datasets and other tools.",
    "next": "List the images whose labels a human should look at next.",
    "difference": "Measure how much better one run is than another, and how sure that is.",
    "check": "Tell whether a benchmark's copy is whole, and what lies where.",
    "compare": "Set a run's numbers beside published ones of the same protocol.",
    "gc": "List, and with --yes delete, results that no configured run refers to.",
}
"""Commands that no rule calls, and their lines of help; each is a module of cutsew.commands."""


def _command(name: str, function: Callable[..., None], summary: str | None) -> Any:  # noqa: ANN401
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name=name, help=summary, short_help=summary)(function)
    return get_command(app)


class StageGroup(typer.core.TyperGroup):
    """The commands: one per stage, then the tools. Listing them imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        """Name the stages in the order of the pipeline, then the tools."""
        return [*COMMANDS, *TOOLS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        """Load the command that is called; while only listing, a line of help stands in for it."""
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
    rich_markup_mode=None,  # without its frames, help is there in half the time
    pretty_exceptions_enable=False,
    help="Multi-label pseudo-labels and a classifier from unlabelled photos. Every stage is one job of the workflow.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cutsew import __version__

        typer.echo(f"cutsew {__version__}")
        raise typer.Exit


@app.callback()
def options(
    log: Annotated[Path | None, typer.Option(help="Write messages to this file too.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Set up messages, and end with the workflow if one has started this."""
    end_with_owner()
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    logging.raiseExceptions = False  # a full disk costs the log, and is told of by what the stage cannot write
    if log is not None:
        # A helper of a training in several processes adds to the file that the first one began.
        helper = os.environ.get("RANK", "0") != "0"
        handlers.append(_log_file(log, "a" if helper else "w"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def _log_file(path: Path, mode: str) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return logging.FileHandler(path, mode=mode, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--log: {path} cannot be written ({error.strerror}); name another file") from None


def main() -> None:
    """Run the command line; bad input ends in one line and exit status 1."""
    try:
        app()
    except Exception as error:
        reason = in_one_line(error)
        if reason is None:
            raise
        logging.getLogger("cutsew").error("cutsew: %s", reason)
        sys.exit(1)

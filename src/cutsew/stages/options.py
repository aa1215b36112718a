"""Command-line options that stages share."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cutsew.errors import UserError

AGAIN = "run the workflow again without --no-hooks; a workflow with a module calls cutsew.onstart() to write it"


def _parse(text: str) -> dict[str, Any]:
    source = text[1:] if text.startswith("@") else "--settings"
    try:
        settings = json.loads(text if source == "--settings" else Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); {AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{source}: not a JSON object of settings")
    return settings


SettingsOption = Annotated[
    dict[str, Any],
    typer.Option(
        parser=_parse, metavar="JSON", help="The settings that the stage reads, or @ and the name of a file with them."
    ),
]
RootOption = Annotated[str | None, typer.Option(help="Folder or URL of the images, instead of dataset.root.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Views per forward pass.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads that compute; they do not change the result.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Workers that decode images; 0 to use only this process.")]

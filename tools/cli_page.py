"""Write docs/reference/cli.md from the help of the commands that people type.

`python tools/cli_page.py`; a test fails when the page is out of date.
"""

import importlib
import textwrap
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from cutsew.cli import FOR_PEOPLE, TOOLS
from cutsew.pipeline.graph import STAGES
from cutsew.storage.atomic import write_text

PAGE = "docs/reference/cli.md"

HEAD = """# Command line

Generated from the commands' own help by `python tools/cli_page.py`.

`cutsew --help` lists all commands and `cutsew COMMAND --help` describes one. Invalid input exits with status 1 and a
[one-line message](errors.md). Every stage of the pipeline is a command too (`cutsew fuse`, `cutsew train`, ...);
Snakemake calls those and prints each call, which you can repeat by hand.

Options of `cutsew` itself come before the command: `--log FILE` also writes messages to a file, and `--version` prints
the version.
"""

EXAMPLES = {
    "init": ["cutsew init photos --classes cat,dog,person", "cutsew init photos --classes classes.txt --offline"],
    "run": [
        "cutsew run photos --classes cat,dog,person",
        "cutsew run                        # resume, or apply an edited config.yaml",
        "cutsew run -- --cores 4           # options of snakemake",
    ],
    "predict": [
        "cutsew predict new-photos results/photos/default labels.csv",
        "cutsew predict new-photos exported/model.onnx - --format jsonl",
    ],
    "verify": ["cutsew verify results/photos/default"],
    "why": ["cutsew why results/photos/default/fused.zarr"],
    "audit": ["cutsew audit results/photos/default", "cutsew audit results/photos/default --image holiday/0001.jpg"],
    "labels": ["cutsew labels results/photos/default tasks.json --format labelstudio"],
    "next": ["cutsew next results/photos/default -n 50"],
    "export": ["cutsew export results/photos/default exported"],
    "diff_runs": ["cutsew diff_runs results/photos/default results/photos/alpha=0.5"],
    "compare_published": ["cutsew compare_published results/voc2012/default"],
    "check_dataset": ["cutsew check_dataset config/nuswide.yaml"],
    "gc": ["cutsew gc                         # list", "cutsew gc --yes                   # delete"],
}


def page() -> str:
    """Return the page."""
    return HEAD + "".join(f"\n{_section(name)}" for name in FOR_PEOPLE)


def _section(name: str) -> str:
    module = importlib.import_module(f"cutsew.{'stages' if name in STAGES else 'commands'}.{name}")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name=name)(getattr(module, name))
    command = get_command(app)
    context = typer.Context(command, info_name=name)
    summary = TOOLS.get(name) or STAGES[name].summary
    described = textwrap.dedent(command.help or "").strip()
    described = " ".join(described.split("\f")[0].split("\n\n")[0].split())
    lines = [f"## cutsew {name}", "", *textwrap.wrap(described or summary, 120, break_on_hyphens=False), ""]
    lines += ["```sh", *EXAMPLES[name], "```", "", "| argument or option | meaning | default |", "|---|---|---|"]
    lines += [_row(parameter, context) for parameter in command.params if parameter.name != "help"]
    return "\n".join(lines) + "\n"


def _row(parameter: Any, context: typer.Context) -> str:  # noqa: ANN401
    record = parameter.get_help_record(context)
    argument = parameter.param_type_name == "argument"
    named = parameter.metavar or str(parameter.name).upper()
    names = named if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    text = parameter.help if argument else (record[1] if record else parameter.help)
    text = (text or "").split("  [")[0]
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, (), []) else f"`{default}`"
    if isinstance(default, bool):
        shown = ("yes" if default else "no") if parameter.secondary_opts else ""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{names}`", text, shown)) + " |"


if __name__ == "__main__":
    write_text(Path(__file__).parents[1] / PAGE, page())

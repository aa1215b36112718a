"""Every snakemake command in the documentation, the presets and the messages parses, and its targets are targets."""

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.snakemake_call import config_files, refuse_swallowed_targets

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "envs/cutsew.yaml", "workflow/profiles/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "config").rglob("*.md")),
    *sorted((ROOT / "config").rglob("*.yaml")),
    *sorted((ROOT / "workflow" / "profiles").rglob("*.yaml")),
]
COMMAND = re.compile(r"^[ #]*((?:\.venv/bin/)?snakemake -.*|(?:\.venv/bin/)?snakemake \w+ -.*)$", re.MULTILINE)
INLINE = re.compile(r"`((?:\.venv/bin/)?snakemake [^`]+)`")
TARGETS = {"all", "labels", "sweep", *STAGES}


def commands():
    for page in PAGES:
        text = re.sub(r"\\\n[ #]*", "", page.read_text(encoding="utf-8"))  # a command may go on in the next line
        for result in [*COMMAND.findall(text), *(" ".join(call.split()) for call in INLINE.findall(text))]:
            yield pytest.param(result, id=f"{page.relative_to(ROOT)}: {result}")


@pytest.mark.parametrize("command", list(commands()))
def test_it_parses_as_it_stands(command):
    words = shlex.split(command.removeprefix("# "), comments=True)[1:]
    refuse_swallowed_targets(words)
    parsed = get_argument_parser().parse_args(words)
    assert not [name for name in parsed.targets if name not in TARGETS and not name.startswith("results/")]
    for path in config_files(words):
        assert path.name in ("mine.yaml", "farm.yaml") or (ROOT / path).is_file()


def test_there_are_commands():
    assert len(list(commands())) > 30

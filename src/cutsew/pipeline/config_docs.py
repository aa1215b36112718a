"""Everything that is written from the settings model: schema, documented defaults, reference page.

`python -m cutsew.pipeline.config_docs` regenerates them; a test fails when they are out of date.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cutsew.config.schema import Config
from cutsew.pipeline.graph import STAGES
from cutsew.storage.atomic import write_text

Json = dict[str, Any]

EXAMPLE_CLASSES = ("cat", "dog")
"""Stand-in for `classes`, the one setting that has no default."""

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
WIDTH = 120


@dataclass(frozen=True)
class Setting:
    """One setting, or one section of them.

    Attributes:
        name: dotted name.
        kind: type and range in words; empty for a section.
        default: as in the config file; None for a section and for `classes`.
        description: what it means.
        section: whether it holds others.

    """

    name: str
    kind: str
    default: Any
    description: str
    section: bool


def schema() -> Json:
    """Return the JSON schema of the config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def settings() -> list[Setting]:
    """List all sections and settings in the order of the config file, a section before what it holds."""
    whole = schema()
    return list(_walk(whole, whole, ""))


def default_yaml(values: Mapping[str, Any]) -> str:
    """Write values of all settings as a config file with each setting's description above it."""
    meanings = {setting.name: setting.description for setting in settings()}
    return "\n".join(_documented(values, meanings, "")).lstrip("\n") + "\n"


def defaults() -> Json:
    """Return every setting's default, nested as in the config file, with EXAMPLE_CLASSES."""
    return Config(classes=list(EXAMPLE_CLASSES)).model_dump(mode="json")


def reference() -> str:
    """Write the reference page of all settings in Markdown."""
    lines = [
        "# Settings",
        "",
        "Every setting of the config file, written from the model by `python -m cutsew.pipeline.config_docs`.",
        "Names are dotted: `cut.passes` is `passes` below `cut`. The last column names the stages that read a setting:",
        "a change of it runs these and what follows them again, and nothing else. A dash means that no stage reads it:",
        "the setting says where or how the work is done.",
    ]
    top_level = [s for s in settings() if "." not in s.name and not s.section]
    lines += ["", "## Top level", *_table(top_level)]
    for section in (s for s in settings() if "." not in s.name and s.section):
        inside = [s for s in settings() if s.name.startswith(section.name + ".") and not s.section]
        lines += [
            "",
            f"## {section.name}",
            "",
            f"{section.description[0].upper()}{section.description[1:]}.",
            *_table(inside),
        ]
    return "\n".join(lines) + "\n"


def readers(name: str) -> list[str]:
    """Name the stages that read a setting."""
    return [
        stage
        for stage, what in STAGES.items()
        if any(name == read or name.startswith(read + ".") for read in what.reads)
    ]


def write_all(root: Path) -> None:
    """Write the generated files below the project's folder."""
    for path, text in generated().items():
        write_text(root / path, text)


def generated() -> dict[str, str]:
    """Return path below the project's folder -> content of each generated file."""
    return {
        "workflow/schemas/config.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "docs/settings.md": reference(),
        "config/default.yaml": "# Every setting with its default, written by `python -m cutsew.pipeline.config_docs`.\n"
        "# A config file names `classes` and only what differs from this.\n\n" + default_yaml(defaults()),
    }


def _walk(node: Json, whole: Json, prefix: str) -> Iterator[Setting]:
    for key, field in node["properties"].items():
        name = f"{prefix}{key}"
        target = _resolve(field, whole)
        section = "properties" in target
        kind = "" if section else _kind(target, whole)
        yield Setting(name, kind, None if section else field.get("default"), field["description"], section)
        if section:
            yield from _walk(target, whole, f"{name}.")


def _resolve(field: Json, whole: Json) -> Json:
    reference = field.get("$ref")
    return whole["$defs"][reference.rpartition("/")[2]] if reference else field


def _kind(field: Json, whole: Json) -> str:
    """Word a type and its range."""
    if "anyOf" in field:
        return " or ".join(_kind(_resolve(option, whole), whole) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return _list_kind(field, whole)
    if field["type"] == "object":
        return "mapping"
    word = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    word |= {"null": "`null`"}
    range_ = " and ".join(f"{sign} {field[key]:g}" for key, sign in BOUNDS.items() if key in field)
    kind = "path" if field.get("format") == "path" else word[field["type"]]
    return f"{kind} {range_}".strip()


def _list_kind(field: Json, whole: Json) -> str:
    items = field.get("prefixItems")
    if items:
        return f"{len(items)} x {_kind(_resolve(items[0], whole), whole)}"
    return f"list of {_kind(_resolve(field['items'], whole), whole)}"


def _table(chosen: list[Setting]) -> list[str]:
    rows = ["", "| setting | values | default | meaning | read by |", "|---|---|---|---|---|"]
    for setting in chosen:
        default = "(required)" if setting.name == "classes" else f"`{_inline(setting.default)}`"
        read_by = ", ".join(readers(setting.name)) or "-"
        cells = (f"`{setting.name}`", setting.kind, default, setting.description, read_by)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _documented(values: Mapping[str, Any], meanings: Mapping[str, str], prefix: str) -> Iterator[str]:
    depth = prefix.count(".")
    indent = "  " * depth
    for key, value in values.items():
        name = f"{prefix}{key}"
        if depth == 0:
            yield ""
        yield from textwrap.wrap(meanings[name], WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if any(other.startswith(f"{name}.") for other in meanings):
            yield f"{indent}{key}:"
            yield from _documented(value, meanings, f"{name}.")
        else:
            yield f"{indent}{key}: {_inline(value)}"


def _inline(value: Any) -> str:  # noqa: ANN401
    """Write a value as YAML on one line; text with line breaks in it is quoted and escaped."""
    text = _flow(value)
    return text if len(text.splitlines()) == 1 else _flow(value, style='"')


def _flow(value: Any, style: str | None = None) -> str:  # noqa: ANN401
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip("\n")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[3])

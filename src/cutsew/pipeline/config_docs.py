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
from cutsew.pipeline.settings_by_task import TASKS
from cutsew.storage.atomic import write_text

Json = dict[str, Any]

EXAMPLE_CLASSES = ("cat", "dog")
"""Stand-in for `classes`, the one setting that has no default."""

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
WIDTH = 120

REFERENCE_HEAD = """# Settings

Every setting of the config file, by task. This page is generated from the code. So is `config/default.yaml`, the
defaults as a config file. Your config file needs `classes` and whatever differs from the defaults.

Names are dotted: `cut.passes` is `passes` below `cut`. On the command line, write `--config 'cut={passes: 10}'`.

- **values**: the type and range, or the values that are allowed.
- **only**: the kinds of the section that have the setting, where not all have it. `teacher.kind`, `fuse.rule` and the
  like select a kind. With another kind, the setting is refused. So is a setting that another one makes idle, such as
  `train.*` with `student.kind: none`, unless it has its default.
- **read by**: the stages that rerun when you change the setting, along with everything downstream. A dash means that no
  stage reads it.

A run, a sweep or `--config` that selects another kind keeps the settings that this kind has too, and drops the rest.
"""


@dataclass(frozen=True)
class Setting:
    """One setting, or one section of them.

    Attributes:
        name: dotted name.
        kind: type and range in words; empty for a section.
        default: as in the config file; None for a section and for `classes`.
        description: what it means.
        section: whether it holds others.
        only: kinds of its section that have it, such as `gated` of `fuse.rule`; empty where all have it.
        by: of a section with kinds: the name of its setting that selects one.
        kinds: of a section with kinds: the values of that setting.

    """

    name: str
    kind: str
    default: Any
    description: str
    section: bool
    only: tuple[str, ...] = ()
    by: str = ""
    kinds: tuple[str, ...] = ()


def schema() -> Json:
    """Return the JSON schema of the config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def settings() -> list[Setting]:
    """List all sections and settings in the order of the config file, a section before what it holds."""
    whole = schema()
    return list(_walk(whole, whole, ""))


def default_yaml(values: Mapping[str, Any]) -> str:
    """Write values of all settings as a config file with each setting's description above it."""
    return "\n".join(_documented(values, settings(), "")).lstrip("\n") + "\n"


def defaults() -> Json:
    """Return every setting's default, nested as in the config file, with EXAMPLE_CLASSES."""
    return Config(classes=list(EXAMPLE_CLASSES)).model_dump(mode="json")


def reference() -> str:
    """Write the reference page of all settings in Markdown."""
    rows = settings()
    lines = REFERENCE_HEAD.splitlines()
    top_level = [s for s in rows if "." not in s.name and not s.section]
    lines += ["", "## Top level", *_table(top_level)]
    described = {s.name: s.description for s in rows if "." not in s.name and s.section}
    for task in TASKS:
        lines += ["", f"## {task.title}", "", *textwrap.wrap(task.text, WIDTH, break_on_hyphens=False)]
        lines += ["", "```yaml", *textwrap.dedent(task.example).strip().splitlines(), "```"]
        for section in task.sections:
            text = described.pop(section)
            inside = [s for s in rows if s.name.startswith(section + ".") and not s.section]
            lines += ["", f"### {section}", "", f"{text[0].upper()}{text[1:]}.", *_table(inside)]
    if described:
        raise ValueError(
            f"{', '.join(described)}: in no task; add it to `sections` of a task in pipeline/settings_by_task.py"
        )
    return "\n".join(lines) + "\n"


def readers(name: str) -> list[str]:
    """Name the stages that read a setting."""
    return [
        stage
        for stage, what in STAGES.items()
        if any(name == read or name.startswith(read + ".") for read in (*what.settings, *what.keyed_by))
    ]


def write_all(root: Path) -> None:
    """Write the generated files below the project's folder."""
    for path, text in generated().items():
        write_text(root / path, text)


def generated() -> dict[str, str]:
    """Return path below the project's folder -> content of each generated file."""
    return {
        "workflow/schemas/config.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "docs/reference/settings.md": reference(),
        "config/default.yaml": "# yaml-language-server: $schema=../workflow/schemas/config.schema.json\n"
        "# Every setting with its default, written by `python -m cutsew.pipeline.config_docs`.\n"
        "# A config file names `classes` and only what differs from this.\n\n" + default_yaml(defaults()),
    }


def _walk(node: Json, whole: Json, prefix: str, only: tuple[str, ...] = ()) -> Iterator[Setting]:
    for key, field in node["properties"].items():
        yield from _walk_one(f"{prefix}{key}", field, whole, only)


def _walk_one(name: str, field: Json, whole: Json, only: tuple[str, ...]) -> Iterator[Setting]:
    target = _resolve(field, whole)
    section = "properties" in target or "discriminator" in target
    kind = "" if section else _kind(target, whole)
    default = None if section else field.get("default")
    by = target.get("discriminator", {}).get("propertyName", "")
    models = [_resolve(one, whole) for one in target["anyOf"]] if by else []
    kinds = tuple(one for model in models for one in _values(model["properties"][by]))
    yield Setting(name, kind, default, field["description"], section, only, by, kinds)
    if by:
        yield from _walk_kinds(models, by, whole, f"{name}.")
    elif section:
        yield from _walk(target, whole, f"{name}.", only)


def _walk_kinds(models: list[Json], by: str, whole: Json, prefix: str) -> Iterator[Setting]:
    """List the settings of a section that has kinds: what selects one, then what each kind has."""
    selecting = [model["properties"][by] for model in models]
    kinds = [_values(field) for field in selecting]
    values = ", ".join(f"`{kind}`" for of_model in kinds for kind in of_model)
    meaning = "; ".join(
        field["description"] if len(names) > 1 else f"{names[0]}: {field['description']}"
        for field, names in zip(selecting, kinds, strict=True)
    )
    yield Setting(f"{prefix}{by}", values, selecting[0]["default"], meaning, section=False)
    rows = [(key, field) for model in models for key, field in model["properties"].items() if key != by]
    distinct = [row for i, row in enumerate(rows) if row not in rows[:i]]
    for key, field in sorted(distinct, key=lambda row: [key for key, _ in rows].index(row[0])):
        having = [model["properties"].get(key) == field for model in models]
        only = tuple(kind for names, has in zip(kinds, having, strict=True) if has for kind in names)
        yield from _walk_one(f"{prefix}{key}", field, whole, () if all(having) else only)


def _values(field: Json) -> tuple[str, ...]:
    """Return the values of a literal."""
    return tuple(field.get("enum", [field.get("const")]))


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
    with_kinds = any(setting.only for setting in chosen)
    header = ("setting", *(("only",) if with_kinds else ()), "values", "default", "meaning", "read by")
    rows = ["", _row(header), "|" + "---|" * len(header)]
    for setting in chosen:
        only = (", ".join(f"`{kind}`" for kind in setting.only),) if with_kinds else ()
        default = "(required)" if setting.name == "classes" else f"`{_inline(setting.default)}`"
        read_by = ", ".join(readers(setting.name)) or "-"
        rows.append(_row((f"`{setting.name}`", *only, setting.kind, default, setting.description, read_by)))
    return rows


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _documented(values: Mapping[str, Any], rows: list[Setting], prefix: str, kind: str = "") -> Iterator[str]:
    depth = prefix.count(".")
    indent = "  " * depth
    here = [row for row in rows if row.name.startswith(prefix) and "." not in row.name.removeprefix(prefix)]
    for row in here:
        key = row.name.removeprefix(prefix)
        if row.only and kind not in row.only:
            continue
        if depth == 0:
            yield ""
        yield from _comment(row.description, indent)
        if row.section:
            yield f"{indent}{key}:"
            yield from _documented(values[key], rows, f"{row.name}.", values[key].get(row.by, "") if row.by else kind)
            yield from _other_kinds(row, values[key].get(row.by, ""), rows, f"{indent}  ")
        else:
            yield f"{indent}{key}: {_inline(values[key])}"


def _other_kinds(section: Setting, kind: str, rows: list[Setting], indent: str) -> Iterator[str]:
    """Write the settings and defaults of a section's other kinds as comments."""
    here = [row for row in rows if row.name.rpartition(".")[0] == section.name and row.only]
    of_kind = {
        one: {row.name.rpartition(".")[2]: _default(row, rows) for row in here if one in row.only}
        for one in section.kinds
    }
    others = {one: settings for one, settings in of_kind.items() if settings != of_kind[kind]}
    if others:
        yield f"{indent}# settings that only some of the other kinds have, with their defaults:"
        yield from (f"{indent}#   {_inline({section.by: one, **settings})}" for one, settings in others.items())


def _default(row: Setting, rows: list[Setting]) -> Any:  # noqa: ANN401
    if not row.section:
        return row.default
    inside = [one for one in rows if one.name.rpartition(".")[0] == row.name]
    return {one.name.rpartition(".")[2]: _default(one, rows) for one in inside}


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _inline(value: Any) -> str:  # noqa: ANN401
    """Write a value as YAML on one line; text with line breaks in it is quoted and escaped."""
    text = _flow(value)
    return text if len(text.splitlines()) == 1 else _flow(value, style='"')


def _flow(value: Any, style: str | None = None) -> str:  # noqa: ANN401
    text: str = yaml.safe_dump(
        value, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip("\n")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[3])

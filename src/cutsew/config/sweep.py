"""Sweeps: many variants of the base run from one small file; grids and lists over dotted settings, several seeds."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from cutsew.config.base import Section, kinds_of
from cutsew.config.loading import DEFAULT, check_run_name, format_validation_errors, is_folder_name, load, override
from cutsew.config.schema import Config
from cutsew.config.yaml_file import read_yaml
from cutsew.errors import UserError

Raw = Mapping[str, Any]

SEED = "train.seed"
"""What `seeds` sets; its short name is `seed`, whatever other seeds there are."""

FIXED = ("runs", "dataset.name", "compute")
"""Settings that no sweep varies: they name folders, or change no result."""

LONGEST = 120
"""Characters of a run's name; a longer one is cut and ends in a digest."""


class SweepConfig(Section):
    """A sweep file: the product of `grid`, `variants` and `seeds`."""

    title: str = Field(description="what the table and the plot are headed with")
    grid: dict[str, list[Any]] = Field({}, description="dotted setting -> values; all combinations are run")
    variants: dict[str, dict[str, Any]] = Field({}, description="name in the table -> settings; run with every one")
    against: str | None = Field(
        None,
        description="name in the table of the variant that the others are held against, with intervals",
    )
    seeds: list[int] = Field([], description="values of train.seed; mean and deviation are taken over them")


@dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        run: its name, `default` for the base run.
        label: its name in the table, the same for all seeds.
        changes: dotted settings that differ from the base run.
        settings: dotted setting -> value, for every setting that the sweep varies.
        seed: value of train.seed; None where nothing is trained.

    """

    run: str
    label: str
    changes: dict[str, Any]
    settings: dict[str, Any]
    seed: int | None


def sweep_files(asked: str, folder: Path) -> list[Path]:
    """Find the files of sweeps.

    Args:
        asked: names of files in `folder`, or paths of files, with commas between them; `all` for all in `folder`.
        folder: config/sweeps.

    Raises:
        UserError: two of them have one name, and so one folder of results; or a name is not safe as a folder's.

    """
    if asked == "all":
        return sorted(folder.glob("*.yaml"))
    names = [name.strip() for name in asked.split(",")]
    files = [Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml" for name in names]
    duplicates = [file.stem for i, file in enumerate(files) if file.stem in {other.stem for other in files[:i]}]
    if duplicates:
        raise UserError(f"sweep: {duplicates[0]} is named twice; name it once")
    for file in files:
        if not is_folder_name(file.stem):
            raise UserError(f"sweep: {file} cannot name a folder of results; use only letters, digits and . _ = + -")
    return files


def read_sweep(path: Path) -> SweepConfig:
    """Read a sweep file.

    Raises:
        UserError: the file is not there, is not YAML or does not hold a sweep.

    """
    if not path.is_file():
        near = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        hint = f"there are {near}" if near else "name an existing YAML file"
        raise UserError(f"sweep: {path} does not exist; {hint}")
    try:
        sweep = SweepConfig.model_validate(read_yaml(path, "a sweep file"))
    except ValidationError as error:
        raise UserError(*format_validation_errors(error, SweepConfig)).below(f"{path}: ") from None
    for dotted, values in sweep.grid.items():
        if not values:
            raise UserError(f"{path}: grid.{dotted}: holds no value; give at least one")
    if not (sweep.grid or sweep.variants or sweep.seeds):
        raise UserError(f"{path}: varies nothing; set grid, variants or seeds")
    return sweep


def variants_of(sweep: SweepConfig, raw: Raw, source: str = "sweep") -> list[Variant]:
    """List the runs of a sweep in its order, each once.

    Args:
        sweep: what to vary.
        raw: settings of the base run, as read from the config file.
        source: what errors are headed with, the sweep's file.

    Raises:
        UserError: a setting is unknown, wrong or cannot vary.

    """
    variants: dict[str, Variant] = {}
    configs: dict[str, Config] = {}
    combined = list(_combinations(sweep, source))
    varied = [name for name in _in_order({k for _, changes, _ in combined for k in changes}) if name != SEED]
    for label, changes, seed in combined:
        try:
            config, kept = _reduced(raw, changes, seed)
            name = run_name(kept, config)
            if name != DEFAULT:
                check_run_name(name)
        except UserError as error:
            raise error.below(f"{source}: ") from None
        if configs.setdefault(name, config) != config:
            raise UserError(f"{source}: two different variants would both be named {name}; rename a value")
        trained = config.student.kind != "none"
        values = {dotted: _value(config, dotted) for dotted in varied}
        title = label or run_name({k: v for k, v in kept.items() if k != SEED}, config)
        variants.setdefault(name, Variant(name, title, kept, values, config.train.seed if trained else None))
    labels = dict.fromkeys(variant.label for variant in variants.values())
    if sweep.against is not None and sweep.against not in labels:
        raise UserError(f"{source}: against: {sweep.against} is not one of the variants {', '.join(labels)}")
    return list(variants.values())


def add_runs(raw: Raw, runs: Mapping[str, dict[str, Any]], source: str = "sweep") -> dict[str, Any]:
    """Return settings whose `runs` hold those of a sweep too.

    Raises:
        UserError: the config file has a run of the same name and other settings.

    """
    configured = raw.get("runs") or {}
    if not isinstance(configured, Mapping):
        return dict(raw)
    for name in set(configured) & set(runs):
        if load(override(raw, configured[name])) != load(override(raw, runs[name])):
            raise UserError(f"{source}: its run {name} differs from runs.{name} of the config file; rename that one")
    return {**raw, "runs": {**configured, **{name: changes for name, changes in runs.items() if name != DEFAULT}}}


def run_name(changes: Raw, config: Config) -> str:
    """Name a run after its changes in the settings' order: `alpha=0.5+seed=10`; without changes `default`.

    A name depends on the changes alone and not on the sweep, so the same variant of two sweeps is one folder.
    """
    name = "+".join(f"{short_name(dotted)}={_as_text(_value(config, dotted))}" for dotted in _in_order(changes))
    return (name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_digest(name)}") or DEFAULT


def short_name(dotted: str) -> str:
    """Return the shortest end of a dotted setting that no other setting ends in; `seed` for train.seed."""
    if dotted == SEED:
        return "seed"
    parts = dotted.split(".")
    for i in range(len(parts) - 1, 0, -1):
        end = ".".join(parts[i:])
        if end != "seed" and [s for s in SETTINGS if s == end or s.endswith(f".{end}")] == [dotted]:
            return end
    return dotted


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    kinds = kinds_of(model)
    for name, field in model.model_fields.items():
        models = kinds[name].models.values() if name in kinds else [field.annotation]
        for one in models:
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from _leaves(one, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"


SETTINGS = tuple(dict.fromkeys(_leaves(Config)))
"""All dotted settings, in the order of the config file."""


def _in_order(names: Any) -> list[str]:  # noqa: ANN401
    """Sort dotted settings as the config file does."""
    return sorted(names, key=lambda name: (SETTINGS.index(name) if name in SETTINGS else len(SETTINGS), name))


def _flat(changes: Raw, prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in SETTINGS:
            flat |= _flat(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


def _combinations(sweep: SweepConfig, source: str) -> Iterator[tuple[str, dict[str, Any], int | None]]:
    """Yield label ('' to name it after its changes), settings and seed of every run, doubles included."""
    lists = {label: _flat(changes) for label, changes in (sweep.variants or {"": {}}).items()}
    for dotted in {*sweep.grid, *(name for changes in lists.values() for name in changes)}:
        if any(dotted == fixed or dotted.startswith(f"{fixed}.") for fixed in FIXED):
            raise UserError(f"{source}: {dotted}: cannot vary in a sweep; leave it out")
        if dotted == SEED and sweep.seeds:
            raise UserError(f"{source}: {SEED}: is varied by `seeds` already; leave one of the two out")
    for label, changes in lists.items():
        both = sorted(set(changes) & set(sweep.grid))
        if both:
            raise UserError(f"{source}: variants.{label}: {both[0]} is in the grid too; leave one of the two out")
        for values in itertools.product(*sweep.grid.values()):
            chosen = dict(zip(sweep.grid, values, strict=True))
            words = [f"{short_name(k)}={_as_text(v)}" for k, v in chosen.items()] if label else []
            for seed in sweep.seeds or (None,):
                yield "+".join([label, *words]), {**changes, **chosen}, seed


def _reduced(raw: Raw, changes: Raw, seed: int | None) -> tuple[Config, dict[str, Any]]:
    """Check a variant's settings and leave out those that change nothing."""
    config = load(override(raw, changes))
    kept = dict(changes)
    if seed is not None and config.student.kind != "none":
        kept[SEED] = seed
        config = load(override(raw, kept))
    for dotted in reversed(_in_order(kept)):
        rest = {k: v for k, v in kept.items() if k != dotted}
        try:
            if load(override(raw, rest)) == config:
                kept = rest
        except UserError:
            continue  # without it the others do not fit together
    return config, {dotted: kept[dotted] for dotted in _in_order(kept)}


def _value(config: Config, dotted: str) -> Any:  # noqa: ANN401
    value: Any = config.model_dump(mode="json")
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _as_text(value: Any) -> str:  # noqa: ANN401
    """Write a value so that it is safe in a path; what cannot be written plainly ends in a digest."""
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, dict)) for item in value):
        return "-".join(_as_text(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if not isinstance(value, str):
        return _digest(value)
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in value)[:40]
    return safe if safe == value and value else f"{safe}-{_digest(value)}"


def _digest(value: Any) -> str:  # noqa: ANN401
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]

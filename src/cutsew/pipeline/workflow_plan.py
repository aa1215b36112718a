"""The plan of a workflow: the runs of the config file and of the requested sweeps, and what the targets consist of."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cutsew.config.loading import DEFAULT
from cutsew.config.sweep import SweepConfig, Variant, add_runs, read_sweep, sweep_files, variants_of
from cutsew.config.yaml_file import class_list_hints, read_config
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.outputs import LAST_FILES
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import check_open_files, validate_inputs
from cutsew.pipeline.preflight_places import refuse_blocked, refuse_damaged_shards


class SweepWildcards(Protocol):
    """Wildcards of a job of one sweep."""

    sweep: str


@dataclass(frozen=True)
class WorkflowPlan:
    """All runs, and which of them the targets need.

    Attributes:
        plan: settings and folders of all runs.
        own_runs: runs of the config file, without those of sweeps.
        sweeps: requested sweeps by name.
        variants: their variants by name of the sweep.
        sweep_folder: where the named sweeps are.

    """

    plan: Plan
    own_runs: tuple[str, ...]
    sweeps: Mapping[str, SweepConfig]
    variants: Mapping[str, list[Variant]]
    sweep_folder: Path

    def results(self) -> list[str]:
        """Return the reports and the tables of labels of the config file's runs."""
        files = LAST_FILES.items()
        return [str(self.plan.folder(run, stage) / name) for stage, name in files for run in self.own_runs]

    def labels(self) -> list[str]:
        """Return the tables of labels of the config file's runs."""
        return [str(self.plan.folder(run, "labels_table") / LAST_FILES["labels_table"]) for run in self.own_runs]

    def sweep_tables(self) -> list[str]:
        """Return the tables of the requested sweeps.

        Raises:
            UserError: no sweep is requested.

        """
        if not self.sweeps:
            known = ", ".join(sorted(path.stem for path in self.sweep_folder.glob("*.yaml")))
            raise UserError(f"sweep: none is named; add --config sweep=NAME ({known}, or all)")
        name = self.plan.config.dataset.name
        return [f"results/{name}/sweeps/{sweep}/table.csv" for sweep in self.sweeps]

    @property
    def sweep_runs(self) -> tuple[str, ...]:
        """The runs of all requested sweeps."""
        return tuple(variant.run for variants in self.variants.values() for variant in variants)

    def sweep_metrics(self, wildcards: SweepWildcards) -> list[str]:
        """Return the metrics of a sweep's variants, each once."""
        return list(dict.fromkeys(self._metrics(variant) for variant in self.variants[wildcards.sweep]))

    def sweep_settings(self, wildcards: SweepWildcards) -> str:
        """Return as JSON what a sweep's table shows; of variants that share one run, the first."""
        sweep = self.sweeps[wildcards.sweep]
        rows: dict[str, dict[str, Any]] = {}
        for variant in self.variants[wildcards.sweep]:
            row = {
                "metrics": str(self.plan.on_disk(variant.run, "evaluate") / "metrics.csv"),
                "variant": variant.label,
                "settings": variant.settings,
                "seed": variant.seed,
            }
            rows.setdefault(self._metrics(variant), row)
        version = STAGES["sweep_table"].version
        table = {"version": version, "title": sweep.title, "against": sweep.against, "runs": list(rows.values())}
        return json.dumps(table, ensure_ascii=False)

    def correction_notes(self) -> list[str]:
        """Say of each run's manual corrections how many there are and whether a training reads them."""
        return list(dict.fromkeys(filter(None, map(self.plan.describe_corrections, self.plan.runs))))

    def metrics_as_text(self) -> list[str]:
        """Return the metrics of each run that was evaluated, as text for a terminal."""
        import pandas as pd  # noqa: PLC0415  # only at the end of a run

        from cutsew.storage.result_tables import as_text  # noqa: PLC0415

        tables = [self.plan.on_disk(run, "evaluate") / "metrics.csv" for run in self.plan.runs]
        return [f"{table}\n{as_text(pd.read_csv(table))}" for table in tables if table.exists()]

    def where_to_look(self) -> list[str]:
        """Name the base run's report and table of labels, as far as they are there."""
        places = {"report": ("report", "report.html"), "labels": ("labels_table", "labels.csv")}
        run = next(iter(self.plan.runs))
        paths = {title: self.plan.on_disk(run, stage) / name for title, (stage, name) in places.items()}
        return [f"{title}: {path}" for title, path in paths.items() if path.exists()]

    def _metrics(self, variant: Variant) -> str:
        return str(self.plan.folder(variant.run, "evaluate") / "metrics.csv")


def read_workflow_plan(
    raw: Mapping[str, Any], config_files: Iterable[Path], sweep_folder: Path, results: Path, *, checks: bool
) -> WorkflowPlan:
    """Plan the runs of a config file and of the sweeps that it requests, and check their settings.

    Args:
        raw: settings as Snakemake read them; `sweep` names sweeps, with commas between them.
        config_files: where they come from. They are read again, because Snakemake takes the last of two equal keys.
        sweep_folder: the folder of named sweeps.
        results: the folder of all datasets' results on disk.
        checks: check the inputs, and print hints at class lists that are probably mistyped. The process that the user
            started does; its jobs must not, since each would list all images again.

    Raises:
        UserError: a setting is wrong, or an input that can be checked before the first job.

    """
    settings = {key: value for key, value in raw.items() if key != "sweep"}
    requested = raw.get("sweep")
    check_open_files()
    for path in filter(Path.is_file, config_files):
        read_config(path)
        for hint in class_list_hints(path) if checks else ():
            print(f"hint: {hint}", file=sys.stderr)
    files = [] if requested is None else sweep_files(str(requested), sweep_folder)
    sweeps, variants = {}, {}
    for path in files:
        sweeps[path.stem] = read_sweep(path)
        variants[path.stem] = variants_of(sweeps[path.stem], settings, str(path))
    extended = settings
    for name, result in variants.items():
        extended = add_runs(extended, {variant.run: variant.changes for variant in result}, name)
    plan = Plan(extended, results)
    if checks:
        refuse_blocked(plan)
        refuse_damaged_shards(plan)
        validate_inputs(*plan.runs.values())
    return WorkflowPlan(plan, (DEFAULT, *(settings.get("runs") or {})), sweeps, variants, sweep_folder)

"""A finished run to be audited: artifacts, settings, and its stages slice by slice.

- A run to be audited: its artifacts, wherever they are, and the settings they were made with.
- The stages of a split, read side by side slice by slice, so that memory is bounded whatever N.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic

from cutsew.config.base import Section
from cutsew.config.evaluation import EvaluateConfig
from cutsew.errors import UserError, did_you_mean
from cutsew.method.fuse import WHOLE
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.consistency import precedes
from cutsew.provenance.lineage import ProvenanceIndex, StoredRecord, plain
from cutsew.provenance.record import input_digest
from cutsew.storage.image_ids import ImageIds, image_ids
from cutsew.storage.label_corrections import FILE, Corrections, read_corrections
from cutsew.storage.manifest import SPLITS, read_manifest
from cutsew.storage.predictions import (
    FINAL,
    REFERENCE,
    SPLIT_STAGES,
    ZARRS,
    Final,
    StagePredictions,
    images_at_once,
    open_predictions,
    read_truth,
)
from cutsew.storage.result_tables import TABLE, RunThresholds, read_thresholds
from cutsew.storage.zarr_reader import array_of, open_group, read_rows

log = logging.getLogger(__name__)

MANIFEST, TRUTH, PATCHES = "images.parquet", "truth.parquet", "patches.parquet"
REFERENCES = "references"

Settings = TypeVar("Settings", bound=Section)


class Run:
    """A run's folder and what can be read from it.

    A variant's folder holds only what differs from the base run. The records say where the rest was read from; those of
    `evaluate` come first, so that what earlier settings left in the folder is not taken for the run's.

    Args:
        folder: results/<dataset>/<run>.

    Raises:
        UserError: not a run's folder.

    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder{_near_folders(folder)}; name a run's, results/<dataset>/<run>")
        self.folder = plain(folder)
        self._traces = ProvenanceIndex()
        self._places = self._located()
        if self.path(MANIFEST) is None or self.path("logits.zarr") is None:
            raise UserError(f"{folder}: has no labels{_near_folders(folder)}; name a run's folder")

    def path(self, name: str) -> Path | None:
        """Return where an artifact is, such as fused.zarr or references/smoothed/scores.zarr; None if nowhere."""
        result = self._places.get(name, self.folder / name)
        available = (result / "zarr.json").is_file() if result.suffix == ".zarr" else result.exists()
        return result if available else None

    def lost(self) -> list[Path]:
        """Return label Zarrs that a record names and that are not there."""
        names = [f"{name}.zarr" for name in ZARRS.values()]
        return [self._places[name] for name in names if name in self._places and self.path(name) is None]

    def elsewhere(self) -> dict[str, Path]:
        """Return what is read from the folders of other runs of the dataset: name -> path."""
        places = ((name, self.path(name)) for name in sorted(self._places))
        local_values, runs = self.folder, self.folder.parent
        return {
            name: path
            for name, path in places
            if path is not None and path.is_relative_to(runs) and not path.is_relative_to(local_values)
        }

    def record(self, name: str) -> StoredRecord | None:
        """Return the record of an artifact."""
        path = self.path(name)
        return self._traces.producer_of(path) if path is not None else None

    def settings(self, name: str, section: str, parse: Callable[[Any], Settings]) -> Settings:
        """Return settings that an artifact was made with; the defaults where no record tells.

        Raises:
            UserError: they are those of another version.

        """
        result = self.record(name)
        values = result.content.get("settings", {}).get(section, {}) if result is not None else {}
        try:
            return parse(values)
        except pydantic.ValidationError:
            raise UserError(
                f"{self.folder / name}: the {section} of its record is of another version; rerun the workflow"
            ) from None

    @cached_property
    def images(self) -> pd.DataFrame:
        """The manifest."""
        return read_manifest(self._places.get(MANIFEST, self.folder / MANIFEST))

    @cached_property
    def outcomes(self) -> dict[str, StagePredictions]:
        """What each stage, and each reference student, made of the images.

        Where a run was evaluated, what evaluate did not read was left in the folder by earlier settings.
        """
        result = self.record("metrics.csv")
        measured = {_name_in_run(path) for path in result.inputs} if result is not None else None
        students = {
            name.split("/")[1]: path
            for name in self._names_of_references()
            if (path := self.path(f"{name}/scores.zarr")) is not None and _is_in(f"{name}/scores.zarr", measured)
        }
        zarrs = [name for name in ZARRS.values() if _is_in(f"{name}.zarr", measured)]
        return open_predictions({name: self.path(f"{name}.zarr") for name in zarrs}, students)

    @cached_property
    def corrections(self) -> Corrections | None:
        """A human's corrections; None where there are none.

        Where the report was written later and did not read the file, it is of earlier settings and not the run's.
        """
        report, path = self.record("report.html"), self.path(FILE)
        unread = report is not None and all(read.name != FILE for read in report.inputs)
        if path is None or (report is not None and unread and not precedes(report, self.record(FILE))):
            return None
        return read_corrections(path, self.classes) or None

    def warn_of_edited_corrections(self) -> None:
        """Warn where the CSV of corrections was edited since the workflow read it."""
        result = self.record(FILE) if self.corrections is not None else None
        for path, digest in result.inputs.items() if result is not None else ():
            if path.suffix != ".parquet" and (not path.is_file() or input_digest(path) != digest):
                log.warning("%s has changed since these corrections were read; run snakemake to apply it", path)

    @cached_property
    def final(self) -> StagePredictions | None:
        """The labels in the end: each split's last stage with a human's corrections; None where there are none."""
        if self.corrections is None:
            return None
        last = {split: self.outcomes[self.stages(split)[-1]] for split in SPLITS if self.ids(split)}
        return Final(last, dict(zip(self.images["id"], self.images["split"], strict=True)), self.corrections)

    def outcome(self, stage: str) -> StagePredictions:
        """Return what a stage made of the images, FINAL among the stages."""
        return self.final if stage == FINAL and self.final is not None else self.outcomes[stage]

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.outcomes["zero_shot"].classes

    @cached_property
    def thresholds(self) -> RunThresholds:
        """Decision thresholds of all stages: those of thresholds.csv, else that of evaluate."""
        fixed = self.settings("metrics.csv", "evaluate", EvaluateConfig.model_validate).threshold
        table = self.path(TABLE)
        return RunThresholds(fixed, read_thresholds(table, self.classes) if table is not None else {})

    def thresholds_of(self, stage: str, split: str) -> npt.NDArray[np.float64]:
        """Return (C,) thresholds of a stage; FINAL has those of the last stage of a split."""
        return self.thresholds.of(self.stages(split)[-1] if stage == FINAL else stage, len(self.classes))

    def stages(self, split: str) -> list[str]:
        """Name the stages that a split's images went through."""
        return [stage for stage in SPLIT_STAGES[split] if stage in self.outcomes]

    def ids(self, split: str) -> list[str]:
        """Return the ids of a split's images, in the order of the manifest."""
        return [str(name) for name in self.images.loc[self.images["split"] == split, "id"]]

    def image(self, name: str) -> pd.Series:
        """Return an image's row of the manifest.

        Raises:
            UserError: there is not one of that id.

        """
        ids: npt.NDArray[np.object_] = self.images["id"].to_numpy(dtype=object)  # Arrow text takes UTF-8 alone
        rows: pd.DataFrame = self.images[ids == name]
        if rows.empty:
            raise UserError(
                f"--image: {name} is not an image of {self.folder.name}{near(name, list(self.images['id']))}"
            )
        return rows.iloc[0]

    def class_number(self, name: str) -> int:
        """Return a class's place among the classes.

        Raises:
            UserError: there is not one of that name.

        """
        if name not in self.classes:
            raise UserError(f"--class: {name} is not a class of {self.folder.name}{near(name, self.classes)}")
        return self.classes.index(name)

    def truth(self, ids: Sequence[str]) -> npt.NDArray[np.int8] | None:
        """Read the ground-truth labels, to be shown; None if there are none. Otherwise as `read_truth`."""
        path = self.path(TRUTH)
        return read_truth(path, ids, self.classes) if path is not None else None

    def _names_of_references(self) -> list[str]:
        present = {f"{REFERENCES}/{path.name}" for path in (self.folder / REFERENCES).glob("*") if path.is_dir()}
        recorded = {name.rpartition("/")[0] for name in self._places if name.startswith(f"{REFERENCES}/")}
        return sorted(present | recorded)

    def _located(self) -> dict[str, Path]:
        order = {stage: number for number, stage in enumerate(STAGES)} | {"evaluate": len(STAGES)}
        records = sorted(self._traces.of_folder(self.folder), key=lambda result: -order.get(result.stage, -1))
        waiting, seen, places = deque(records), set[Path](), dict[str, Path]()
        while waiting:
            output = waiting.popleft()
            if output.file in seen:
                continue
            seen.add(output.file)
            # The artifact named by its reader before the one that lies about: see the class.
            for path in (*output.inputs, *output.outputs):
                if all(parent.suffix != ".zarr" for parent in path.parents):  # a seal's outputs include chunk files
                    places.setdefault(_name_in_run(path), path)
            waiting += [maker for path in output.inputs if (maker := self._traces.producer_of(path)) is not None]
        return places


def _is_in(name: str, measured: set[str] | None) -> bool:
    return measured is None or name in measured


def _name_in_run(path: Path) -> str:
    inside = path.parent.parent.name == REFERENCES
    return f"{REFERENCES}/{path.parent.name}/{path.name}" if inside else path.name


def near(name: str, names: Sequence[str]) -> str:
    """Suggest names that are nearly the one given."""
    return "; " + (did_you_mean(name, names) or f"there are {', '.join(names[:3])}, ...")


def _near_folders(folder: Path) -> str:
    """Suggest runs' folders near one that is none."""
    folder = plain(folder)
    above = next(path for path in folder.parents if path.is_dir())
    globs = (root.glob(f"{depth}/logits.zarr") for root in (above, folder) for depth in ("*", "*/*"))
    runs = {file.parent for result in globs for file in result}
    matches = get_close_matches(folder.name, sorted({run.name for run in runs}), n=2, cutoff=0.5)
    named = [str(run) for run in sorted(runs) if run.name in matches or run.is_relative_to(folder)][:2]
    return f" (did you mean {' or '.join(named)}?)" if named else ""


TEACHERS = ("fused", "pseudo", "overridden", "refined")
"""Stages whose labels descend from the fusion, so that a label's winning view is known."""


class Slice(NamedTuple):
    """Up to `images_at_once` images of a stage.

    Attributes:
        ids: of the n images.
        z: (n, C) logits.
        before: (n, C) logits of the stage before; None for the first and for reference students.
        from_crop: (n, C) bool, where a crop gave the fused value; None where that says nothing of the stage.

    """

    ids: list[str]
    z: npt.NDArray[np.float32]
    before: npt.NDArray[np.float32] | None
    from_crop: npt.NDArray[np.bool_] | None


def stages_of(run: Run, split: str) -> list[tuple[str, str | None]]:
    """List the stages of a split, each with the one before; reference students have none before.

    Where a human corrected labels, FINAL is the last stage of the method.
    """
    stages = run.stages(split) + ([FINAL] if run.final is not None else [])
    edges: list[tuple[str, str | None]] = list(zip(stages, [None, *stages], strict=False))
    if split == "test":
        edges += [(stage, None) for stage in run.outcomes if stage.startswith(REFERENCE)]
    return edges


def slices(run: Run, stage: str, before: str | None, ids: list[str]) -> Iterator[Slice]:
    """Yield a stage's labels of some images with those of the previous stage."""
    winners = _winners(run, ids) if stage in TEACHERS and run.path("fused.zarr") is not None else None
    earlier = run.outcome(before).slices(ids) if before is not None else None
    for number, z in enumerate(run.outcome(stage).slices(ids)):
        ids_of_slice = ids[number * images_at_once(z.shape[1]) :][: len(z)]
        yield Slice(ids_of_slice, z, next(earlier) if earlier else None, next(winners) if winners else None)


def _winners(run: Run, ids: list[str]) -> Iterator[npt.NDArray[np.bool_]]:
    path = run.path("fused.zarr")
    assert path is not None  # noqa: S101  # slices asks for winners only where they are
    group = open_group(path)
    winner = array_of(group, "winner")
    rows = ImageIds(image_ids(group)).find(ids)
    size = images_at_once(winner.shape[1])
    for start in range(0, len(rows), size):
        yield read_rows(winner, rows[start : start + size]) != WHOLE

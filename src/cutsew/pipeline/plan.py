"""Which settings made an artifact of a run, and so which run's folder holds it.

Runs share what they have in common: a stage whose settings, its ancestors' included, equal those of an earlier run is
read from that run's folder.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutsew.config import load_runs
from cutsew.config.loading import DEFAULT
from cutsew.config.named_models import OPEN_CLIP_CONFIG, local_files
from cutsew.errors import printable
from cutsew.models.preprocessing import TIMM_CONFIG
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.resolve import REBUILT, resolve
from cutsew.storage.label_corrections import digest_of, in_words
from cutsew.storage.tables import read_record

if TYPE_CHECKING:
    import pandas as pd

REFERENCE_OVERRIDES = {"sew.kind": "none", "train.em_weight": 0.0, "train.correct_refined": False}
"""Settings of a reference student's training, as far as its head has them: on plain images, its labels left as they
are."""

LABELED_BY = {"pseudo": "correct", "fused": "fuse"}
"""`train.labels` -> the stage that makes them; zero-shot labels are scored or imported."""

SCORING = {"score", "import_scores"}
"""The stages that make logits.zarr, one in each run."""

WEIGHTS_OF: dict[str, tuple[str, ...]] = {
    "text": ("teacher",),
    "encode": ("teacher",),
    "tagclip": ("teacher",),
    "train": ("student",),
    "reference_train": ("student",),
    "explain": ("teacher", "student"),
}
"""Stage -> sections of the settings whose weights it loads; others read them from what these made."""


class Plan:
    """Where every run's artifacts are and what settings made them.

    Args:
        raw: settings as read from the config file.
        results: the folder of all datasets' results, as jobs have to name it.

    Raises:
        UserError: a setting is wrong.

    """

    def __init__(self, raw: Mapping[str, Any], results: Path = Path("results")) -> None:
        loaded = load_runs(raw)
        self.runs = resolve(loaded, results)
        self.config = loaded[DEFAULT]
        self._results = results
        self._owners: dict[tuple[str, str], str] = {}
        self._signatures: dict[tuple[str, str], str] = {}
        self._trained_on: dict[str, str] = {}

    def settings(self, run: str, stage: str) -> dict[str, Any]:
        """Return the settings that a stage reads, nested as in the config file."""
        names = STAGES[stage].settings_of(self.runs[run])
        return self._chosen(run, names, REFERENCE_OVERRIDES if stage == "reference_train" else {})

    def _chosen(self, run: str, names: Iterable[str], replaced: Mapping[str, Any]) -> dict[str, Any]:
        dumped = self.runs[run].model_dump(mode="json")
        chosen: dict[str, Any] = {}
        for dotted in names:
            *groups, leaf = dotted.split(".")
            source = dumped
            for group in groups:
                source = source.get(group, {})
            if leaf not in source:
                continue  # a setting of another kind of the section
            target = chosen
            for group in groups:
                target = target.setdefault(group, {})
            target[leaf] = replaced.get(dotted, source[leaf])
        return chosen

    def params(self, run: str, stage: str) -> str:
        """Return a stage's version and settings as the JSON that its rule's params hold and its command is given."""
        return json.dumps({"version": STAGES[stage].version, **self.settings(run, stage)}, ensure_ascii=False)

    def source_run(self, run: str, stage: str) -> str:
        """Name the first run whose artifact of a stage is made with the same settings, ancestors' included."""
        key = (run, stage)
        if key not in self._owners:
            expected = self.signature(run, stage)
            self._owners[key] = next(r for r in self.runs if self.signature(r, stage) == expected)
        return self._owners[key]

    def signature(self, run: str, stage: str) -> str:
        """Digest the settings of a stage and of all before it."""
        if (run, stage) not in self._signatures:
            self._signatures[run, stage] = self._digest(run, stage)
        return self._signatures[run, stage]

    def _digest(self, run: str, stage: str) -> str:
        content = [self.params(run, stage), *(self.signature(run, earlier) for earlier in self._after(run, stage))]
        if stage == "override":
            content.append(self._corrections_trained_on(run))
        content.append(json.dumps(self._chosen(run, STAGES[stage].keyed_by, {})))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _after(self, run: str, stage: str) -> tuple[str, ...]:
        """Name the stages before one; which labels some of them read depends on the settings."""
        config, unread = self.runs[run], set[str]()
        if stage == "fuse" and config.score.rule != "tagclip":
            unread = {"seal_tagclip"}
        if stage == "select":
            unread = {"correct"} if config.select.labels == "zero_shot" else {"score", "import_scores"}
        if stage in ("targets", "override", "train"):
            label = self.labels_read(run, stage, corrected=bool(self._corrections_trained_on(run)))
            read = SCORING if label in SCORING else {label}
            unread = {"override", "targets", "correct", "fuse", *SCORING} - read
        if stage == "train" and config.sew.kind == "none":
            unread.add("select")
        if stage == "override":
            unread.add("corrections")  # those of held-out images make no difference: see _digest
        return tuple(earlier for earlier in STAGES[stage].after if earlier not in unread)

    def labels_read(self, run: str, stage: str, corrected: bool) -> str:
        """Name the stage whose labels `targets`, `override` or `train` reads: the last before it that makes some.

        Args:
            run: a run.
            stage: the stage that reads.
            corrected: whether a human's corrections change labels of training images.

        """
        config = self.runs[run]
        if stage == "train" and corrected:
            return "override"
        if stage != "targets" and config.targets.labels_per_image is not None:
            return "targets"
        return LABELED_BY.get(config.train.labels) or self.scored_by(run)

    def scored_by(self, run: str) -> str:
        """Name the stage that makes a run's logits.zarr."""
        return "import_scores" if self.runs[run].teacher.kind == "scores" else "score"

    def _corrections_trained_on(self, run: str) -> str:
        """Return what distinguishes training on these corrections from other trainings; empty without corrections.

        Computed once, so that the folders of one plan agree. Where the images are yet to be listed, the file stands for
        what is in it.
        """
        if run not in self._trained_on:
            file = self.runs[run].labels.overrides
            known = file is None or self._lists_images(run)
            self._trained_on[run] = self.training_corrections(run) if known else f"{file}"
        return self._trained_on[run]

    def _lists_images(self, run: str) -> bool:
        """Check whether there is a manifest, made with the run's settings."""
        manifest = self.on_disk(run, "manifest") / "images.parquet"
        record = manifest.with_suffix(".json")
        if not (manifest.is_file() and record.is_file()):
            return False
        made_with = read_record(record, "settings")
        return bool(made_with == json.loads(self.params(run, "manifest")))

    def training_corrections(self, run: str) -> str:
        """Digest a run's corrections of training images; empty where there are none, or no manifest yet."""
        table = self.corrections(run)
        return "" if table is None else digest_of(table[table["split"] == "train"])

    def trains_on_corrections(self, run: str) -> bool:
        """Check whether a human corrected labels of training images; assumed as long as there is no manifest."""
        if self.runs[run].labels.overrides is None:
            return False
        return self.corrections(run) is None or bool(self.training_corrections(run))

    def corrections(self, run: str) -> "pd.DataFrame | None":
        """Read a run's corrections with the split of their images; None where there are none, or no manifest yet."""
        file, manifest = self.runs[run].labels.overrides, self.on_disk(run, "manifest") / "images.parquet"
        if file is None or not (file.is_file() and manifest.is_file()):
            return None
        from cutsew.data.corrections_csv import split_of_corrections  # noqa: PLC0415  # only runs with corrections need pandas

        return split_of_corrections(file, manifest, self.runs[run].classes)

    def describe_corrections(self, run: str) -> str:
        """Say how many labels of a run a human corrected, and whether they train anything; empty for no corrections."""
        table, config = self.corrections(run), self.runs[run]
        if table is None:
            return ""
        train = int((table["split"] == "train").sum())
        message = in_words(train, len(table) - train, student=config.student.kind != "none")
        return f"labels.overrides: {printable(str(config.labels.overrides))}: {message}"

    def weights(self, run: str, stage: str) -> list[Path]:
        """Name the files on this machine that a stage reads weights and their preprocessing from.

        Those that the workflow makes are left out.
        """
        config = self.runs[run]
        paths: list[Path] = []
        for section in WEIGHTS_OF.get(stage, ()):
            model = getattr(config, section)
            if model.kind == "timm":
                paths += _local(model.timm.weights, TIMM_CONFIG)
            elif model.kind == "open_clip" and model.open_clip.pretrained is None:
                paths += local_files(model.open_clip.model)
            elif model.kind == "open_clip" and Path(model.open_clip.pretrained).name != REBUILT:
                paths += _local(model.open_clip.pretrained, OPEN_CLIP_CONFIG)
        return [*paths, *(shard for file in paths if file.name.endswith(".index.json") for shard in _shards(file))]

    def folder(self, run: str, stage: str) -> Path:
        """Return the folder that holds a stage's artifacts for a run."""
        return Path("results", self.runs[run].dataset.name, self.source_run(run, stage))

    @property
    def dataset_folder(self) -> Path:
        """The folder of the dataset's results on disk."""
        return self._results / self.config.dataset.name

    def on_disk(self, run: str, stage: str) -> Path:
        """Return where that folder lies: below the prefix of a module, which the paths of rules do not have."""
        return self._results / self.runs[run].dataset.name / self.source_run(run, stage)


def _local(weights: str, config: str) -> list[Path]:
    """Return a local checkpoint and the configuration next to it; nothing for a tag."""
    path = Path(weights)
    return [file for file in (path, path.with_name(config)) if file.is_file()] if path.is_file() else []


def _shards(index: Path) -> list[Path]:
    """Return the files that an index of sharded weights names and that are there; its reader refuses the rest."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(path for path in (index.with_name(str(name)) for name in names) if path.is_file())

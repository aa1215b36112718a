"""The stages of the pipeline: what each reads, after which it stands, and which version its numbers are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutsew.config.schema import Config


@dataclass(frozen=True)
class ReadIf:
    """A setting, or a section of them, that a stage reads under a condition alone.

    Attributes:
        setting: its dotted name.
        condition: whether a run's settings make the stage read it.

    """

    setting: str
    condition: "Callable[[Config], bool]"


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        summary: one line for the command line's help.
        version: raised when the stage's numbers change, so that its artifacts are made again; guarded by a golden test.
        reads: dotted names of the settings that it reads; they stand in its rule's params. A setting that only some
            kinds of its section have is read with these kinds.
        after: stages whose artifacts it reads.
        keyed_by: dotted names of further settings by which runs have artifacts of their own: they select what the rule
            reads, or how many jobs it has, and do not stand in its params.
        command: the stage whose command its rule calls, where that is not its own.

    """

    summary: str
    version: int
    reads: tuple[str | ReadIf, ...]
    after: tuple[str, ...] = ()
    keyed_by: tuple[str, ...] = ()
    command: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Dotted names of all settings that the stage may read."""
        return tuple(read.setting if isinstance(read, ReadIf) else read for read in self.reads)

    def settings_of(self, config: "Config") -> Iterator[str]:
        """Yield the dotted names of the settings that the stage reads in a run."""
        for read in self.reads:
            if not isinstance(read, ReadIf):
                yield read
            elif read.condition(config):
                yield read.setting


def _fuses_crops(config: "Config") -> bool:
    return config.score.rule != "tagclip"


def _keeps_no_crop_logits(config: "Config") -> bool:
    return not config.score.keeps_crop_logits


def _has_em_step(config: "Config") -> bool:
    return config.train.head == "adapter" and config.train.em_weight > 0


def _corrects_again(config: "Config") -> bool:
    return config.train.head == "adapter" and config.train.correct_refined


TRAINING = ("classes", "student", "sew.kind", "train.head", "train.seed") + tuple(
    f"train.{name}"
    for name in ("batch_size", "weight_decay")
    + ("adapter", "epochs", "lr_adapter", "lr_decoder", "schedule", "warmup", "strong_weight", "em_weight")
    + ("correct_refined", "steps", "lr", "rates", "sewn_epochs")
)
"""What all trainings read."""


STAGES: dict[str, Stage] = {
    "tiny_clip": Stage("Retrain the demo's tiny CLIP.", 1, (), keyed_by=("dataset.demo.rebuild_teacher",)),
    "demo_world": Stage(
        "Write the demo's images in PASCAL VOC layout.",
        1,
        tuple(f"dataset.demo.{name}" for name in ("train", "test", "seed")),
    ),
    "download": Stage("Download and unpack a benchmark's archives.", 1, ("dataset.download", "dataset.root")),
    "manifest": Stage(
        "List, check and shard the images.",
        2,
        ("dataset.kind", "dataset.root", "dataset.on_bad_image", "dataset.test", "dataset.shard_size")
        + ("dataset.files", "dataset.image", "dataset.id")
        + ("dataset.voc", "dataset.coco", "dataset.nus", "dataset.unannotated")
        + ("dataset.benchmark", "dataset.protocol", "dataset.allow_incomplete", "teacher.scores"),
        ("demo_world", "download"),
    ),
    "truth": Stage(
        "Read the ground-truth labels, for evaluation only.",
        2,
        ("classes", "dataset.kind", "dataset.root", "dataset.truth", "dataset.difficult", "dataset.coco"),
        ("manifest",),
    ),
    "text": Stage(
        "Embed the class names.",
        1,
        ("classes", "prompts.templates", "prompts.names", "prompts.background")
        + (ReadIf("prompts.wordings", lambda config: config.prompts.has_several_wordings),)
        + ("score.activation", "teacher.kind", "teacher.open_clip", "teacher.conse"),
        ("tiny_clip",),
    ),
    "encode": Stage(
        "Embed a block of crop passes of one shard; with the first block, the whole images too.",
        4,
        ("teacher.kind", "teacher.precision", "teacher.compiled", "teacher.runtime")
        + ("teacher.open_clip", "teacher.conse")
        + ("cut.layout", "cut.tiles", "cut.windows", "cut.area", "cut.aspect", "cut.flip", "cut.seed")
        + ("cut.passes_per_job", "dataset.shard_size"),
        ("manifest", "tiny_clip"),
        ("cut.passes",),
    ),
    "seal": Stage(
        "Write the metadata of views.zarr when all chunks are complete.",
        2,
        ("cut.layout", "cut.tiles", "cut.windows", "cut.passes", "cut.passes_per_job", "dataset.shard_size"),
        ("encode",),
    ),
    "score": Stage(
        "Turn embeddings into logits (Eq. 3-4).",
        2,
        ("score.epsilon", *(ReadIf(name, _keeps_no_crop_logits) for name in ("score.keep", "fuse.rule"))),
        ("text", "seal"),
    ),
    "import_scores": Stage(
        "Read logits from externally computed scores.",
        1,
        ("classes", "teacher.scores", "score.activation", "score.epsilon"),
        ("manifest",),
    ),
    "tagclip": Stage(
        "Score the patches of one shard's images and re-score each class's region (TagCLIP).",
        3,
        ("teacher.kind", "teacher.precision", "teacher.open_clip", "dataset.shard_size")
        + tuple(f"score.tagclip.{name}" for name in ("background", "patches", "blocks", "votes", "candidates")),
        ("manifest", "text", "tiny_clip"),
    ),
    "seal_tagclip": Stage(
        "Write the metadata of tagclip.zarr when all chunks are complete.", 1, ("dataset.shard_size",), ("tagclip",)
    ),
    "fuse": Stage(
        "Fuse the logits of all views (Eq. 7), or TagCLIP's two scores.",
        3,
        (ReadIf("fuse", _fuses_crops), "score.rule", "score.epsilon", "score.tagclip.weight"),
        ("score", "import_scores", "seal_tagclip"),
    ),
    "correct": Stage("Lift the top-beta classes (Eq. 9).", 1, ("correct",), ("fuse",)),
    "targets": Stage(
        "Shift the logits to a mean number of labels per image.",
        4,
        ("targets",),
        ("correct", "fuse", "score", "import_scores"),
        ("train.labels",),
    ),
    "corrections": Stage(
        "Read manual label corrections and match them to the images.",
        1,
        ("classes", "labels", "student.kind"),
        ("manifest",),
    ),
    "override": Stage(
        "Apply manual corrections to the initial training labels.",
        2,
        ("score.epsilon",),
        ("corrections", "targets", "correct", "fuse", "score", "import_scores"),
        ("train.labels",),
    ),
    "select": Stage(
        "Select the salient images to paste (Eq. 10).",
        1,
        ("select.top_k",),
        ("score", "import_scores", "correct"),
        ("select.labels",),
    ),
    "train": Stage(
        "Train the adapter and refine the pseudo-labels (Eq. 11-20).",
        6,
        (
            *TRAINING,
            "sew",
            ReadIf("train.lr_estimator", _has_em_step),
            ReadIf("correct", _corrects_again),
        ),
        ("override", "targets", "correct", "fuse", "score", "import_scores", "select", "tiny_clip"),
        ("train.labels",),
    ),
    "predict": Stage(
        "Classify images with a trained student: files, folders or the held-out split.", 2, (), ("train",)
    ),
    "tiles": Stage("Score the held-out images with test-time tiling.", 2, (), ("train",)),
    "ensemble": Stage(
        "Ensemble the student's logits with the fused teacher's.",
        2,
        (ReadIf("fuse.passes", _fuses_crops), "score.rule"),
        ("score", "import_scores", "fuse", "train", "predict"),
    ),
    "thresholds": Stage(
        "Choose decision thresholds per stage and class.",
        4,
        ("thresholds", "targets.labels_per_image", "evaluate.threshold"),
        ("score", "import_scores", "fuse", "correct", "targets", "override", "train", "predict"),
    ),
    "labels_table": Stage(
        "Write every image's labels and probabilities as CSV and Parquet.",
        2,
        ("evaluate.threshold",),
        ("corrections", "correct", "targets", "fuse", "train", "predict", "tiles", "ensemble", "thresholds"),
        ("predict.tiles", "predict.ensemble"),
    ),
    "reference_labels": Stage(
        "Derive the training labels of a reference student from the ground truth.",
        1,
        ("classes", "references.smoothing", "train.seed"),
        ("truth",),
    ),
    "reference_train": Stage(
        "Train a reference student.",
        6,
        TRAINING,
        ("reference_labels", "score", "import_scores", "tiny_clip"),
        command="train",
    ),
    "reference_predict": Stage(
        "Score the held-out images with a reference student.", 2, (), ("reference_train",), command="predict"
    ),
    "explain": Stage(
        "Compute class activation maps, and the features of a sample of images.",
        2,
        ("teacher.kind", "teacher.open_clip", "teacher.conse", "explain"),
        ("text", "seal", "train", "predict", "tiny_clip"),
    ),
    "evaluate": Stage(
        "Evaluate every stage.",
        6,
        ("evaluate", "predict"),
        ("truth", "predict", "tiles", "ensemble", "thresholds", "reference_predict"),
        ("references.kinds",),
    ),
    "report": Stage("Write the HTML report.", 6, (), ("evaluate", "explain", "corrections")),
    "sweep_table": Stage("Tabulate the runs of a sweep.", 2, (), ("evaluate",)),
}

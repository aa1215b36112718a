"""The settings of one run, from which the schema, the default config and the reference page are generated."""

import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cutsew.config.base import Section, Size
from cutsew.config.cutting import Cut, RandomCropsConfig
from cutsew.config.dataset import Dataset, DemoDatasetConfig, LayoutConfig
from cutsew.config.evaluation import (
    EvaluateConfig,
    Explain,
    ExplainConfig,
    LabelsConfig,
    PredictConfig,
    ReferencesConfig,
    ThresholdsConfig,
)
from cutsew.config.method import (
    Correct,
    Fuse,
    LiftingConfig,
    MaxFusionConfig,
    Score,
    SelectConfig,
    Sew,
    SewConfig,
    SoftmaxScoringConfig,
    SqrtCorrectionConfig,
    TargetsConfig,
)
from cutsew.config.networks import OpenClipStudentConfig, OpenClipTeacherConfig, PromptsConfig, Student, Teacher
from cutsew.config.training import AdapterTrainingConfig, Train

STANDARD_CLASSES = 3
"""Least classes for fuse.rule standard: of two, standardized, one is always 1 and the other -1."""


FROM_EXTREMES = ("max", "cdul")
"""Fusion rules that need only the highest and the lowest crop logit per class (`score.keep: none`)."""


class ComputeConfig(Section):
    """How the work is done; none of it changes a result beyond float tolerance, so none of it reruns a job."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        description="auto uses an NVIDIA GPU if available; mps is an Apple GPU, in float32, and was never run on one",
    )
    batch_size: Size = Field(32, description="views per forward pass when encoding and predicting")
    container: str | None = Field(
        None,
        min_length=1,
        description="image, built from envs/Dockerfile, in which jobs run with snakemake --sdm apptainer: "
        "docker://<registry>/<name>:<tag> or a .sif file",
    )
    train_processes: Size = Field(
        1, description="number of training processes on one node, one GPU each; the result does not depend on it"
    )
    gpu_tflops: float = Field(
        30,
        gt=0,
        description="TFLOP/s that one GPU reaches, from which the time limits of cluster jobs follow: 5 for a T4, 10 "
        "for a V100 in float32; an A100 or newer needs no change",
    )
    checkpoint_seconds: float = Field(
        30,
        ge=0,
        description="minimum interval between checkpoints in seconds, from which an interrupted training "
        "resumes; longer where writing would take more than a twentieth of the time; 0 writes one every step",
    )
    cache_features: Literal["auto", "off"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="size limit in GB of the feature cache results/<dataset>/features, which lets training with "
        "another learning rate, loss weight, beta or EM setting skip the backbone; auto: 20, and at most half "
        "of the free "
        "disk; features that would not fit are not kept",
    )

    @field_validator("cache_features", mode="before")
    @classmethod
    def yaml_reads_off_as_false(cls, value: object) -> object:
        """Take YAML's `off` as what it says."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def an_apple_gpu_is_one(self) -> Self:
        """Refuse several training processes on an Apple GPU."""
        if self.device == "mps" and self.train_processes > 1:
            raise ValueError("train_processes needs one GPU for each process; set it to 1 with device: mps")
        return self


class Config(Section):
    """All settings of a workflow: the base run and, under `runs`, its variants."""

    classes: list[str] = Field(description="names of the classes to look for")
    method: Literal["paper", "released", "cutsew"] = Field(
        "paper",
        description="released: what is not set here is set as in the authors' released code, not as in the paper; "
        "cutsew: settings that our trials found to be better than the paper's, without labels and at lower cost",
    )
    dataset: Dataset = Field(default_factory=DemoDatasetConfig, description="where the images are")
    prompts: PromptsConfig = Field(default_factory=PromptsConfig, description="how class names become texts")
    teacher: Teacher = Field(default_factory=OpenClipTeacherConfig, description="the model that scores views")
    cut: Cut = Field(default_factory=RandomCropsConfig, description="cutting: the crops (Eq. 5)")
    score: Score = Field(
        default_factory=SoftmaxScoringConfig, description="from similarities to logits (Eq. 3-4, or TagCLIP)"
    )
    fuse: Fuse = Field(default_factory=MaxFusionConfig, description="cutting: all views' logits to one (Eq. 7)")
    correct: Correct = Field(default_factory=SqrtCorrectionConfig, description="sewing: the correction (Eq. 9)")
    select: SelectConfig = Field(default_factory=SelectConfig, description="sewing: salient images (Eq. 10)")
    targets: TargetsConfig = Field(
        default_factory=TargetsConfig, description="sewing: labels per image (beyond the paper)"
    )
    labels: LabelsConfig = Field(default_factory=LabelsConfig, description="manual corrections; none by default")
    sew: Sew = Field(default_factory=SewConfig, description="sewing: pasting (Eq. 11-13)")
    student: Student = Field(default_factory=OpenClipStudentConfig, description="the frozen backbone")
    train: Train = Field(
        default_factory=AdapterTrainingConfig, description="the student's head and its training (Eq. 14-20)"
    )
    predict: PredictConfig = Field(default_factory=PredictConfig, description="how held-out images are scored")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="what is measured")
    thresholds: ThresholdsConfig = Field(
        default_factory=ThresholdsConfig,
        description="from which probability a class is a label: one rule for tables, report, exports and new images",
    )
    references: ReferencesConfig = Field(default_factory=ReferencesConfig, description="students to compare with")
    explain: Explain = Field(default_factory=ExplainConfig, description="class activation maps and features")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="how the work is done")
    runs: dict[str, dict[str, Any]] = Field({}, description="variants: name -> settings that differ from the base run")

    @field_validator("classes", mode="before")
    @classmethod
    def classes_are_a_list(cls, classes: object) -> object:
        """Refuse `classes: cat, dog`, which YAML reads as one text."""
        if isinstance(classes, str):
            names = ", ".join(part.strip() for part in classes.replace(";", ",").split(",") if part.strip())
            raise ValueError(f"is one text, not a list; write classes: [{names or 'cat, dog'}]")  # noqa: TRY004
        return classes

    @field_validator("classes")
    @classmethod
    def classes_are_distinct(cls, classes: list[str]) -> list[str]:
        """At least one class, none empty, none twice; whether one is enough depends on the teacher."""
        if any(not name.strip() for name in classes):
            raise ValueError("holds an empty name; remove it")
        duplicates = sorted(name for name, count in Counter(classes).items() if count > 1)
        if duplicates:
            raise ValueError(f"names {', '.join(duplicates)} more than once; keep one")
        alike = _alike(classes, lambda name: unicodedata.normalize("NFC", " ".join(name.split())))
        if alike:
            raise ValueError(f"names {alike[0]!r} and {alike[1]!r}, which differ only in spaces or accents; keep one")
        if not classes:
            raise ValueError("is empty; name at least one class")
        return classes

    @model_validator(mode="after")
    def classes_differ_in_more_than_case(self) -> Self:
        """Reject classes that a text tower cannot distinguish: CLIP's tokenizers read lower case."""
        alike = _alike([name for name in self.classes if name not in self.prompts.names], str.casefold)
        if alike and self.teacher.kind != "scores":
            raise ValueError(
                f"classes: {alike[0]!r} and {alike[1]!r} differ only in case, which text encoders do not read; word "
                "one of them differently in prompts.names"
            )
        return self

    @model_validator(mode="after")
    def patches_have_a_tower(self) -> Self:
        """Refuse TagCLIP with a teacher that shows no patches."""
        if self.score.rule == "tagclip" and self.teacher.kind != "open_clip":
            raise ValueError("score.rule: tagclip needs teacher.kind: open_clip with a vision transformer; set both")
        return self

    @model_validator(mode="after")
    def rules_have_the_crops_they_need(self) -> Self:
        """Refuse settings that read logits of single crops where none are stored."""
        if self.score.keeps_crop_logits:
            return self
        if self.teacher.kind == "scores":
            raise ValueError("score.keep: none needs embeddings, and teacher.kind: scores has none; set it to all")
        if self.fuse.rule not in FROM_EXTREMES:
            raise ValueError(
                f"score.keep: none stores only the highest and lowest crop of each class, and fuse.rule: "
                f"{self.fuse.rule} needs all; set score.keep: all, or fuse.rule: {' or '.join(FROM_EXTREMES)}"
            )
        if self.fuse.passes is not None:
            raise ValueError(
                "fuse.passes: selects among crop logits, and score.keep: none stores none; set cut.passes instead, or "
                "score.keep: all"
            )
        return self

    @model_validator(mode="after")
    def a_student_is_there(self) -> Self:
        """Refuse what needs a student where there is none."""
        needing = {
            "references.kinds: need a student; set student.kind, or leave them out": self.references.kinds,
            "predict.ensemble: needs a student; set student.kind, or set it to none": self.predict.ensemble != "none",
            "predict.tiles: needs a student; set student.kind, or set it to false": self.predict.tiles,
        }
        for message, requested in needing.items():
            if requested and self.student.kind == "none":
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def settings_fit_together(self) -> Self:
        """Refuse what only shows across sections."""
        if self.dataset.kind == "ids" and self.teacher.kind != "scores":
            raise ValueError("dataset.kind: ids has no images, so set teacher.kind: scores")
        if self.dataset.kind == "ids" and self.student.kind != "none":
            raise ValueError("dataset.kind: ids has no images, so set student.kind: none")
        if isinstance(self.correct, LiftingConfig) and self.correct.beta > len(self.classes):
            raise ValueError(
                f"correct.beta: {self.correct.beta} is more than the {len(self.classes)} classes; lower it"
            )
        if self.fuse.rule == "standard" and self.score.rule != "tagclip" and len(self.classes) < STANDARD_CLASSES:
            raise ValueError(
                f"fuse.rule: standard compares each class with the others and needs at least {STANDARD_CLASSES}, and "
                f"there are {len(self.classes)}; set max or soft, or add classes"
            )
        if self.correct.rule == "hard" and len(self.classes) == 1:
            raise ValueError("correct.rule: hard would set the only class in every image; set another rule")
        if isinstance(self.targets.labels_per_image, float) and self.targets.labels_per_image >= len(self.classes):
            raise ValueError(
                f"targets.labels_per_image: {self.targets.labels_per_image:g} is not less than the number of "
                f"classes; lower it"
            )
        if self.teacher.kind == "scores" or self.cut.layout == "auto":
            pass  # M is known when the scores have been read, or the teacher's tower is
        elif excess := more_passes_than_cut(self.fuse, self.cut):
            raise ValueError(excess)
        labeled = [kind for kind in self.references.kinds if kind != "zero_shot"]
        if labeled and not self.dataset.annotated and self.dataset.truth is None:
            raise ValueError(f"references.kinds: {labeled[0]} needs true labels; set dataset.truth, or leave it out")
        dataset, known = self.dataset, self.dataset.known()
        if known is None or not isinstance(dataset, LayoutConfig) or dataset.allow_incomplete:
            pass  # nothing is published of these images, or they are part of a benchmark only
        elif len(self.classes) != known.classes:
            raise ValueError(
                f"classes: {len(self.classes)} of the {known.classes} of {dataset.benchmark}; name them all, "
                "or set dataset.allow_incomplete: true, and its numbers are not the benchmark's"
            )
        unknown = sorted(set(self.prompts.names) - set(self.classes))
        if unknown:
            raise ValueError(f"prompts.names: {', '.join(unknown)} not among classes; remove or rename")
        return self


def more_passes_than_cut(fuse: Fuse, cut: Cut) -> str | None:
    """Say in one line that more passes would be fused than there are; None where there are enough."""
    if (fuse.passes or 0) <= cut.num_passes:
        return None
    return f"fuse.passes: {fuse.passes} is more than the {cut.num_passes} passes of cut.layout {cut.layout}; lower it"


def _alike(names: list[str], key: Callable[[str], str]) -> tuple[str, str] | None:
    """Return the first two names of one key."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(key(name), name)
        if other != name:
            return other, name
    return None

"""The settings of one run, from which the schema, the default config and the reference page are generated."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cutsew.config.base import Fraction, Section, Size
from cutsew.config.dataset import Dataset, Demo
from cutsew.config.method import Correct, Cut, Fuse, MaxFusion, RandomCrops, Score, Select, Sew, Targets
from cutsew.config.networks import Adapter, Linear, Prompts, Student, Teacher, Train

STANDARD_CLASSES = 3
"""Least classes for fuse.rule standard: of two, standardized, one is always 1 and the other -1."""


class Evaluate(Section):
    """What is measured where there is truth."""

    threshold: Fraction = Field(0.5, description="decision threshold: the probability from which a class is predicted")
    top: Size = Field(3, description="classes named per photo for the top-n measures")


class Predict(Section):
    """What is said of held-out photos in the end."""

    ensemble: Literal["none", "teacher"] = Field(
        "none",
        description="teacher: the student's answer and the fused teacher's are combined too (ensemble.zarr, a row of "
        "its own in every table); better than either, at M + 1 questions to the teacher for every photo",
    )
    tiles: bool = Field(
        False,
        description="the student looks at four overlapping tiles of each photo too (tiles.zarr, a row of its own in "
        "every table); better where objects are small, at five views of the student instead of one",
    )


class Thresholds(Section):
    """Per-class decision thresholds of the student on new images."""

    rule: Literal["fixed", "count", "mixture"] = Field(
        "count",
        description="fixed: 0.5; count: names a class in as many photos as the pseudo-labels let expect; mixture: "
        "parts two Gaussians fitted to the logits. thresholds.csv holds all three",
    )


Reference = Literal["zero_shot", "supervised", "smoothed", "single_positive"]
"""A student to hold the method's against; all but the first need true labels."""


class Labels(Section):
    """A human's audit of the labels, kept apart from the label-free path."""

    overrides: Path | None = Field(
        None,
        description="corrected labels: a CSV (image, class, present 1 or 0; by and at are kept), as the report's page "
        "writes it; an edited copy of labels.csv; or Label Studio's export as JSON. They win in exports, audit and "
        "report; training starts from those of training photos, and those of held-out photos train nothing",
    )


class References(Section):
    """Students without cutting and sewing, to place the method between its floor and its ceiling."""

    kinds: list[Reference] = Field(
        [],
        description="students trained on other labels, without sewing and E-step: zero_shot (naive distillation), "
        "supervised (true labels), smoothed (true labels, smoothed), single_positive (one random true label per photo)",
    )
    smoothing: float = Field(0.1, gt=0, lt=1, description="label smoothing of kind smoothed")


class Explain(Section):
    """What the report shows of how teacher and student see (paper, Figures 8, 11 and 12), chosen without truth."""

    pairs: int = Field(
        40,
        ge=0,
        description="maximum number of class activation maps: each class in the photo with its highest logit, and that "
        "photo's second predicted class; 0 leaves the whole stage out",
    )
    sample: Size = Field(600, description="photos whose features are kept, before and after, to be drawn as a map")


class Compute(Section):
    """How the work is done; none of it changes a result beyond float tolerance, so none of it reruns a job."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    batch_size: Size = Field(32, description="views per forward pass when encoding and predicting")
    train_processes: Size = Field(
        1, description="processes that train together on one node, each with a GPU of its own; they train alike"
    )
    checkpoint_seconds: float = Field(
        30, ge=0, description="least seconds between checkpoints, from which a killed training goes on; 0: every step"
    )
    cache_features: Literal["auto", "off"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="GB of sewn photos' features that may lie in results/<dataset>/features, so that another learning "
        "rate, loss weight, beta or EM setting is trained without the backbone; auto: 20, and at most half of the free "
        "disk; features that would not fit are not kept",
    )

    @field_validator("cache_features", mode="before")
    @classmethod
    def yaml_reads_off_as_false(cls, value: object) -> object:
        """Take YAML's `off` as what it says."""
        return "off" if value is False else value


class Config(Section):
    """All settings of a workflow: the base run and, under `runs`, its variants."""

    classes: list[str] = Field(description="names of the classes to look for")
    method: Literal["paper", "released", "cutsew"] = Field(
        "paper",
        description="released: what is not set here is set as in the authors' released code, not as in the paper; "
        "cutsew: as trials found better than the paper, without labels and at less cost",
    )
    dataset: Dataset = Field(default_factory=Dataset, description="where the photos are")
    demo: Demo = Field(default_factory=Demo, description="dataset kind demo")
    prompts: Prompts = Field(default_factory=Prompts, description="how class names become texts")
    teacher: Teacher = Field(default_factory=Teacher, description="the model that is asked")
    cut: Cut = Field(default_factory=RandomCrops, description="cutting: the crops (Eq. 5)")
    score: Score = Field(default_factory=Score, description="from what is seen to logits (Eq. 3-4, or TagCLIP)")
    fuse: Fuse = Field(default_factory=MaxFusion, description="cutting: many answers to one (Eq. 7)")
    correct: Correct = Field(default_factory=Correct, description="sewing: the correction (Eq. 9)")
    select: Select = Field(default_factory=Select, description="sewing: salient photos (Eq. 10)")
    targets: Targets = Field(default_factory=Targets, description="sewing: labels per photo (beyond the paper)")
    labels: Labels = Field(default_factory=Labels, description="corrections by hand; none by default")
    sew: Sew = Field(default_factory=Sew, description="sewing: pasting (Eq. 11-13)")
    student: Student = Field(default_factory=Student, description="the frozen backbone")
    adapter: Adapter = Field(default_factory=Adapter, description="the trained head (Eq. 14-16)")
    linear: Linear = Field(default_factory=Linear, description="the linear head in its place (beyond the paper)")
    train: Train = Field(default_factory=Train, description="the EM loop (Eq. 17-20)")
    predict: Predict = Field(default_factory=Predict, description="the answer for held-out photos")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="what is measured")
    thresholds: Thresholds = Field(
        default_factory=Thresholds,
        description="from which probability `cutsew predict` and exported models name a class",
    )
    references: References = Field(default_factory=References, description="students to compare with")
    explain: Explain = Field(default_factory=Explain, description="maps of what is seen where")
    compute: Compute = Field(default_factory=Compute, description="how the work is done")
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
        """At least one class, none empty, none twice; whether one is enough depends on the teacher (checks.py)."""
        if any(not name.strip() for name in classes):
            raise ValueError("holds an empty name; remove it")
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} more than once; keep one")
        alike = _alike(classes, lambda name: unicodedata.normalize("NFC", " ".join(name.split())))
        if alike:
            raise ValueError(f"names {alike[0]!r} and {alike[1]!r}, which differ in spaces or accents alone; keep one")
        if not classes:
            raise ValueError("names none; name at least one")
        return classes

    @model_validator(mode="after")
    def classes_differ_in_more_than_case(self) -> Self:
        """Refuse classes that a text tower cannot tell apart: CLIP's tokenizers read lower case."""
        alike = _alike([name for name in self.classes if name not in self.prompts.names], str.casefold)
        if alike and self.teacher.kind != "scores":
            raise ValueError(
                f"classes: {alike[0]!r} and {alike[1]!r} differ in case alone, which text encoders do not read; word "
                "one of them otherwise in prompts.names"
            )
        return self

    @model_validator(mode="after")
    def patches_have_a_tower(self) -> Self:
        """Refuse TagCLIP with a teacher that shows no patches."""
        if self.score.rule == "tagclip" and self.teacher.kind != "open_clip":
            raise ValueError("score.rule: tagclip needs teacher.kind: open_clip with a vision transformer; set both")
        return self

    @model_validator(mode="after")
    def a_student_is_there(self) -> Self:
        """Refuse what needs a student where there is none."""
        needing = {
            "references.kinds: need a student; set student.kind, or leave them out": self.references.kinds,
            "predict.ensemble: needs a student; set student.kind, or set it to none": self.predict.ensemble != "none",
            "predict.tiles: needs a student; set student.kind, or set it to false": self.predict.tiles,
        }
        for message, asked in needing.items():
            if asked and self.student.kind == "none":
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def settings_fit_together(self) -> Self:
        """Refuse what only shows across sections."""
        if self.dataset.kind == "ids" and self.teacher.kind != "scores":
            raise ValueError("dataset.kind: ids has no photos, so set teacher.kind: scores")
        if self.dataset.kind == "ids" and self.student.kind != "none":
            raise ValueError("dataset.kind: ids has no photos, so set student.kind: none")
        if self.correct.beta > len(self.classes):
            raise ValueError(
                f"correct.beta: {self.correct.beta} is more than the {len(self.classes)} classes; lower it"
            )
        if self.fuse.rule == "standard" and self.score.rule != "tagclip" and len(self.classes) < STANDARD_CLASSES:
            raise ValueError(
                f"fuse.rule: standard compares each class with the others and needs at least {STANDARD_CLASSES}, and "
                f"there are {len(self.classes)}; set max or soft, or add classes"
            )
        if self.correct.rule == "hard" and len(self.classes) == 1:
            raise ValueError("correct.rule: hard would set the only class in every photo; set another rule")
        if isinstance(self.targets.count, float) and self.targets.count >= len(self.classes):
            raise ValueError(f"targets.count: {self.targets.count:g} is not less than the number of classes; lower it")
        if self.teacher.kind == "scores" or self.cut.layout == "auto":
            pass  # M is known when the scores have been read, or the teacher's tower is
        elif excess := more_passes_than_cut(self.fuse, self.cut):
            raise ValueError(excess)
        labelled = [kind for kind in self.references.kinds if kind != "zero_shot"]
        if labelled and not self.dataset.annotated and self.dataset.truth is None:
            raise ValueError(f"references.kinds: {labelled[0]} needs true labels; set dataset.truth, or leave it out")
        known = self.dataset.known()
        if known is not None and not self.dataset.reduced and len(self.classes) != known.classes:
            raise ValueError(
                f"classes: {len(self.classes)} of the {known.classes} of {self.dataset.benchmark}; name them all, "
                "or set dataset.reduced: true, and its numbers are not the benchmark's"
            )
        unknown = sorted(set(self.prompts.names) - set(self.classes))
        if unknown:
            raise ValueError(f"prompts.names: {', '.join(unknown)} not among classes; remove or rename")
        if self.adapter.width % self.adapter.heads:
            raise ValueError(f"adapter.heads: {self.adapter.heads} does not divide adapter.width {self.adapter.width}")
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

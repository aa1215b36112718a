"""Settings of the two networks: the teacher, which scores whole images and crops, and the student's frozen backbone."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from cutsew.config.base import (
    MODEL_NAME,
    OneOf,
    OpenClipModelConfig,
    Precision,
    PreprocessingConfig,
    Section,
    Size,
)


class PromptsConfig(Section):
    """How a class name becomes the text that the teacher reads."""

    templates: list[str] = Field(
        ["a photo of a {class}"], min_length=1, description="texts with {class}; their embeddings are averaged"
    )
    names: dict[str, str | list[str]] = Field(
        {},
        description="other wordings of class names, one or several, e.g. {tvmonitor: tv monitor, crane: [crane bird, "
        "heron]}",
    )
    wordings: Literal["average", "best"] = Field(
        "average",
        description="classes with several wordings: average takes the mean of their embeddings; best takes for each "
        "view the wording that is most similar to it",
    )
    background: list[str] = Field(
        [],
        description="background words, e.g. [sky, grass, wall]: they take part in the softmax over each view and "
        "are dropped after it; words that name a class are ignored",
    )

    @model_validator(mode="after")
    def templates_hold_the_class(self) -> Self:
        """Refuse a template without the class, which would give every class the same text."""
        for template in self.templates:
            if "{class}" not in template:
                raise ValueError(f"template {template!r} lacks {{class}}")
        return self

    @property
    def has_several_wordings(self) -> bool:
        """Whether any class has several wordings."""
        return any(isinstance(words, list) for words in self.names.values())

    @field_validator("names")
    @classmethod
    def wordings_are_distinct(cls, names: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        """Refuse an empty wording, and one that is given twice; a list of one is that one."""
        listed = {name: [words] if isinstance(words, str) else words for name, words in names.items()}
        for name, words in listed.items():
            _refuse_empty_or_twice(words, f"wordings of {name}")
        return {name: words[0] if len(words) == 1 else words for name, words in listed.items()}

    @field_validator("background")
    @classmethod
    def background_is_distinct(cls, words: list[str]) -> list[str]:
        """Refuse an empty word, and one that is given twice."""
        if words:
            _refuse_empty_or_twice(words, "words")
        return words

    def wordings_of(self, classes: Sequence[str]) -> list[list[str]]:
        """Return the wordings of each class: its name where no other is given."""
        given = [self.names.get(name, name) for name in classes]
        return [[words] if isinstance(words, str) else words for words in given]

    def background_beside(self, classes: Sequence[str]) -> list[str]:
        """Return the background words that name no class: neither its name nor a wording of it, in any case."""
        class_words = {_plain(word) for words in (classes, *self.wordings_of(classes)) for word in words}
        return [word for word in self.background if _plain(word) not in class_words]


def _plain(word: str) -> str:
    return unicodedata.normalize("NFC", " ".join(word.split())).casefold()


def _refuse_empty_or_twice(words: list[str], what: str) -> None:
    if not words or any(not word.strip() for word in words):
        raise ValueError(f"{what}: one is empty; remove it")
    duplicates = sorted({word for word in words if words.count(word) > 1})
    if duplicates:
        raise ValueError(f"{what}: {', '.join(duplicates)} is given more than once; keep one")


class OpenClipTeacherModelConfig(OpenClipModelConfig):
    """The open_clip model of a teacher."""

    model: str = Field("RN50x64", description=MODEL_NAME)
    image_size: Size | None = Field(448, description="side of the square view in pixels; null for the model's own")


class ConseModelConfig(Section):
    """A convex combination of class-name embeddings under an ImageNet classifier (Norouzi et al., ICLR 2014)."""

    encoder: Literal["efficientnet_lite0"] = Field("efficientnet_lite0", description="the ImageNet classifier")
    top: Size = Field(50, description="T, number of ImageNet classes that are combined")
    scale: float = Field(20.0, gt=0, description="logit scale of the softmax over the classes")


class ScoresFileConfig(Section):
    """A file of probabilities or logits that another program computed."""

    file: Path | None = Field(None, description="npz, Zarr or parquet file with ids, classes and the scores")
    zero_shot: str = Field("zero_shot", description="name of the (N, C) array of whole-image scores")
    crops: list[str] = Field(["crops"], description="names of (N, C) or (M, N, C) arrays, each one or M passes")
    values: Literal["probabilities", "logits"] = Field("probabilities", description="type of the scores")
    missing: Literal["error", "drop"] = Field(
        "error", description="whether images without scores are an error or are dropped"
    )


class EncodingTeacherConfig(Section):
    """What all teachers have in common whose image encoder runs here."""

    kind: str
    precision: Precision = Field(
        "tf32",
        description="number format: float32; tf32, the same with a GPU's TF32 tensor cores; bfloat16; float16 (GPU)",
    )
    compiled: bool = Field(False, description="use torch.compile: takes about a minute per job, then runs faster")
    runtime: Literal["torch", "openvino"] = Field(
        "torch",
        description="inference runtime: torch; or openvino (extra `openvino`), faster on a CPU, with results that "
        "differ in the last digits",
    )

    @model_validator(mode="after")
    def one_compiler_at_most(self) -> Self:
        """OpenVINO compiles by itself."""
        if self.compiled and self.runtime == "openvino":
            raise ValueError("compiled is for runtime torch; openvino compiles by itself, leave it out")
        return self


class OpenClipTeacherConfig(EncodingTeacherConfig):
    """A teacher from open_clip."""

    kind: Literal["open_clip"] = Field("open_clip", description="any open_clip model")
    open_clip: OpenClipTeacherModelConfig = Field(
        default_factory=OpenClipTeacherModelConfig, description="the model and its weights"
    )


class ConseTeacherConfig(EncodingTeacherConfig):
    """A teacher that runs without any model hub."""

    kind: Literal["conse"] = Field(
        "conse", description="class-name embeddings combined under an ImageNet classifier; runs without any model hub"
    )
    conse: ConseModelConfig = Field(
        default_factory=ConseModelConfig, description="the ImageNet classifier and its softmax"
    )


class ScoresTeacherConfig(Section):
    """Scores from a file in place of a model."""

    kind: Literal["scores"] = Field("scores", description="probabilities or logits that another program computed")
    scores: ScoresFileConfig = Field(default_factory=ScoresFileConfig, description="the file and its arrays")

    @model_validator(mode="after")
    def scores_have_a_file(self) -> Self:
        """Scores come from a file."""
        if self.scores.file is None:
            raise ValueError("kind scores needs `scores.file`")
        return self


Teacher = Annotated[OpenClipTeacherConfig | ConseTeacherConfig | ScoresTeacherConfig, OneOf("kind")]
"""The model that scores whole images and crops, by `teacher.kind`."""

parse_teacher = TypeAdapter[Teacher](Teacher).validate_python
"""Return the settings of a teacher from a mapping."""


class OpenClipStudentModelConfig(OpenClipModelConfig):
    """Any open_clip visual tower without its pooling."""

    model: str = Field("RN101", description=MODEL_NAME)
    image_size: Size = Field(448, description="side of the square input in pixels")


class TimmModelConfig(Section):
    """Any timm model that gives a feature map."""

    model: str = Field(
        "tf_efficientnet_lite0", description="timm model name, with its tag (resnet50.a1_in1k) or without"
    )
    weights: str = Field(
        "package", description="package: from extra `offline`; pretrained: from the hub; or the path of a local file"
    )
    image_size: Size = Field(288, description="side of the square input in pixels")
    preprocessing: PreprocessingConfig = Field(
        default_factory=PreprocessingConfig,
        description="null takes it from the tag, from config.json next to the local file, or from all tags of the "
        "model where they agree",
    )


class BackboneConfig(Section):
    """What all students have in common: a frozen backbone."""

    kind: str
    precision: Precision = Field(
        "tf32",
        description="number format: float32; tf32, the same with a GPU's TF32 tensor cores; bfloat16; float16 (GPU)",
    )
    compiled: bool = Field(False, description="use torch.compile: takes about a minute per job, then runs faster")


class OpenClipStudentConfig(BackboneConfig):
    """A student on a visual tower from open_clip."""

    kind: Literal["open_clip"] = Field("open_clip", description="the visual tower of any open_clip model")
    open_clip: OpenClipStudentModelConfig = Field(
        default_factory=OpenClipStudentModelConfig, description="the model and its weights"
    )


class TimmStudentConfig(BackboneConfig):
    """A student on a model from timm."""

    kind: Literal["timm"] = Field("timm", description="any timm model that gives a feature map")
    timm: TimmModelConfig = Field(default_factory=TimmModelConfig, description="the model and its weights")


class NoStudentConfig(Section):
    """Pseudo-labels without a student."""

    kind: Literal["none"] = Field("none", description="stops at the pseudo-labels")


Student = Annotated[OpenClipStudentConfig | TimmStudentConfig | NoStudentConfig, OneOf("kind")]
"""The student, by `student.kind`."""

BuiltStudent = OpenClipStudentConfig | TimmStudentConfig
"""A student that has a backbone."""

parse_student = TypeAdapter[Student](Student).validate_python
"""Return the settings of a student from a mapping."""


class TrainedModelConfig(Section):
    """The part of model.yaml that says how to build the backbone."""

    backbone: Annotated[BuiltStudent, OneOf("kind")]

"""What sections of the settings have in common, and the section that teacher and student share."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cutsew.config.named_models import is_named

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""

Size = Annotated[int, Field(ge=1)]
"""A count of at least one."""


NULLS = ("null", "Null", "NULL", "~")
"""How YAML writes null."""

Precision = Literal["tf32", "float32", "bfloat16", "float16"]
"""Number format in which a frozen encoder computes."""


class Section(BaseModel):
    """A group of settings: unknown keys, numbers that are not finite, and `true` for a number are refused.

    Values never change after loading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse `yes`, `on` and `true` where a number is wanted: they would pass for 1."""
        if isinstance(value, bool) and info.field_name is not None:
            wanted = cls.model_fields[info.field_name].annotation
            if bool not in (wanted, *get_args(wanted)):
                raise ValueError(f"is {str(value).lower()}; write a value of its kind, not true, false, yes or no")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def null_as_text(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Take the text `null` as null where that is allowed: Snakemake's `--config` reads YAML's scalars as text."""
        if isinstance(value, str) and value in NULLS and info.field_name is not None:
            return None if type(None) in get_args(cls.model_fields[info.field_name].annotation) else value
        return value

    @field_validator("*", mode="before")
    @classmethod
    def no_empty_path(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse an empty path, which would stand for the working directory."""
        if isinstance(value, str) and not value.strip() and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if Path in (annotation, *get_args(annotation)):
                raise ValueError("is empty; name a file or folder, or write null for none")
        return value


Channels = Annotated[list[Fraction], Field(min_length=3, max_length=3)]
"""A number in [0, 1] for each of red, green and blue."""

Spread = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=3, max_length=3)]
"""A number in (0, 1] for each of red, green and blue."""


class Preprocessing(Section):
    """How photos are made into a model's input; what is null comes with the weights."""

    mean: Channels | None = Field(None, description="of red, green and blue, for pixels in [0, 1]")
    std: Spread | None = Field(None, description="likewise")
    interpolation: Literal["bicubic", "bilinear"] | None = Field(None, description="how photos are resized")


MODEL_NAME = (
    "open_clip model name, hf-hub:<org>/<name> or local-dir:<folder with open_clip_config.json>; cutsew-tiny and "
    "cutsew-tiny-sigmoid are the demo's own"
)


class OpenClipModel(Section):
    """An open_clip model and its weights, which teacher and student name alike."""

    model: str = Field(description=MODEL_NAME)
    pretrained: str | None = Field(
        "openai",
        description="open_clip weights tag, or the path of a local checkpoint (safetensors, .pt, .pth, .bin, .ckpt); "
        "null for hf-hub: and local-dir: models, which bring their weights",
    )
    image_size: Size | None = Field(None, description="side of the square input in pixels; null for the model's own")
    tag: str | None = Field(
        None,
        description="for a local checkpoint: the tag of the weights it holds, where those that open_clip has of the "
        "model differ in preprocessing or QuickGELU",
    )
    quick_gelu: bool | None = Field(
        None, description="whether the weights were trained with QuickGELU; null takes it from where preprocessing is"
    )
    preprocessing: Preprocessing = Field(
        default_factory=Preprocessing,
        description="null takes it from the tag, from open_clip_config.json next to the checkpoint, or from all tags "
        "of the model where they agree",
    )

    @model_validator(mode="before")
    @classmethod
    def weights_come_with_named_models(cls, values: Any) -> Any:  # noqa: ANN401
        """Leave the default tag out for models that bring their weights."""
        if isinstance(values, dict) and is_named(str(values.get("model", ""))) and "pretrained" not in values:
            return {**values, "pretrained": None}
        return values

    @model_validator(mode="after")
    def weights_are_named_once(self) -> Self:
        """Refuse a tag for a model that brings its weights, and a model of open_clip without weights."""
        if is_named(self.model) and self.pretrained is not None:
            raise ValueError(f"pretrained: {self.model} brings its weights; set pretrained: null")
        if not is_named(self.model) and not self.pretrained:
            raise ValueError(f"pretrained: names no weights of {self.model}; give a tag or a local file")
        return self

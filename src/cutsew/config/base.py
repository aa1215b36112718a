"""What sections of the settings have in common, and the section that teacher and student share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from cutsew.config.named_models import is_named

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""

Size = Annotated[int, Field(ge=1)]
"""A count of at least one."""


NULLS = ("null", "Null", "NULL", "~")
"""How YAML writes null."""

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
SINGLE_SLASH = re.compile(r"(https?|s3|gs|gcs|hf|ftp|sftp|memory):/(?!/)", re.IGNORECASE)
QUERY = re.compile(r"\?[^/]*=")
"""What a pattern of names may hold as well as a URL; it is no pattern where the folder is a URL."""


def is_url(place: object) -> bool:
    """Check whether a place is a URL, not a path."""
    return isinstance(place, str) and URL.match(place) is not None


def to_location(place: Any) -> Any:  # noqa: ANN401 - validation reports what is not text
    """Return a URL as text and any other text as a path.

    Raises:
        ValueError: the URL holds credentials, which would reach records and logs. The message does not repeat them.

    """
    if not isinstance(place, str):
        return place
    if "://" in place and ("::" in place or not is_url(place)):
        raise ValueError("is a chain of URLs; write one alone, as in https://host/folder")
    if SINGLE_SLASH.match(place):
        raise ValueError(f"is neither a path nor a URL; write {place.partition(':')[0]}:// with two slashes")
    if not is_url(place):
        return Path(place)
    parts = urlsplit(place)
    user, at, host = parts.netloc.rpartition("@")
    of_web = parts.scheme in ("http", "https")
    kept = "a password or token" if at and (":" in user or of_web) else "a query" if parts.query else ""
    if of_web and parts.fragment and not kept:
        kept = "a fragment (#)"
    if kept:
        raise ValueError(
            f"is a URL with {kept}, which records would keep; write {parts.scheme}://{host}{parts.path}, "
            "and give fsspec the credentials (environment variables or ~/.config/fsspec)"
        )
    return place


Location = Annotated[Path | str, BeforeValidator(to_location)]
"""A local path, or a URL that fsspec opens; `str` if and only if it is a URL."""

Precision = Literal["tf32", "float32", "bfloat16", "float16"]
"""Number format in which a frozen encoder computes."""


class Section(BaseModel):
    """A group of settings: unknown keys, numbers that are not finite, and `true` for a number are refused.

    Values never change after loading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def reject_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse `yes`, `on` and `true` where a number is wanted: they would pass for 1."""
        if isinstance(value, bool) and info.field_name is not None:
            expected = cls.model_fields[info.field_name].annotation
            if bool not in (expected, *get_args(expected)):
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

    @field_validator("*", mode="before")
    @classmethod
    def no_url_for_path(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse a URL where only a path is read; the message does not repeat it, for it may hold credentials."""
        if isinstance(value, str) and "://" in value and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = (annotation, *get_args(annotation))
            if Path in kinds and str not in kinds:
                raise ValueError("is a URL; name a file or folder on this machine")
        return value


@dataclass(frozen=True)
class Kinds:
    """Models of one section, of which a setting selects one.

    Attributes:
        by: the setting that selects, such as `rule`.
        models: its values, and the model that each selects; the first is the default.

    """

    by: str
    models: dict[str, type[Section]]

    def of(self, values: Any) -> str:  # noqa: ANN401
        """Return the kind of a section as the user wrote it: the default where none is named."""
        given = values.get(self.by) if isinstance(values, Mapping) else None
        return str(next(iter(self.models)) if given is None else given)

    def having(self, name: str) -> list[str]:
        """Return the kinds that have a setting."""
        return [kind for kind, model in self.models.items() if name in model.model_fields]


@dataclass(frozen=True)
class OneOf:
    """Marks a union of sections as a discriminated one whose first member is the default.

    A section that does not name its kind is of the first. In the JSON schema the kind is optional, since `method` may
    set it.
    """

    by: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Fill in the kind where it is not named, then validate with the model of that kind."""
        models = _models(source, self.by)
        default = next(iter(models))

        def with_kind(values: Any) -> Any:  # noqa: ANN401
            if not isinstance(values, (Mapping, BaseModel)):
                raise PydanticKnownError("dict_type")
            return {self.by: default, **values} if isinstance(values, Mapping) else values

        # Field(discriminator=...) refuses models whose validators look at all fields, as those of Section do.
        choices = {kind: handler.generate_schema(model) for kind, model in models.items()}
        tagged = core_schema.tagged_union_schema(choices, self.by)
        return core_schema.no_info_before_validator_function(with_kind, tagged)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Accept every kind's settings; the setting that names the kind stands in `discriminator`."""
        tagged = handler(schema)
        return {"anyOf": tagged["oneOf"], "discriminator": {"propertyName": self.by}}


@cache
def kinds_of(model: type[BaseModel]) -> dict[str, Kinds]:
    """Return the sections of a model that have kinds, by their names."""
    marked = {
        name: (field.annotation, mark)
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, OneOf)
    }
    return {name: Kinds(mark.by, _models(union, mark.by)) for name, (union, mark) in marked.items()}


def _models(union: Any, by: str) -> dict[str, type[Section]]:  # noqa: ANN401
    models = get_args(union)
    return {kind: model for model in models for kind in get_args(model.model_fields[by].annotation)}


Channels = Annotated[list[Fraction], Field(min_length=3, max_length=3)]
"""A number in [0, 1] for each of red, green and blue."""

Spread = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=3, max_length=3)]
"""A number in (0, 1] for each of red, green and blue."""


class PreprocessingConfig(Section):
    """How images are made into a model's input; what is null comes with the weights."""

    mean: Channels | None = Field(None, description="per channel (red, green, blue), for pixels in [0, 1]")
    std: Spread | None = Field(None, description="per channel (red, green, blue), for pixels in [0, 1]")
    interpolation: Literal["bicubic", "bilinear"] | None = Field(
        None, description="interpolation used to resize images"
    )


MODEL_NAME = (
    "open_clip model name, hf-hub:<org>/<name> or local-dir:<folder with open_clip_config.json>; cutsew-tiny and "
    "cutsew-tiny-sigmoid are the demo's"
)


class OpenClipModelConfig(Section):
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
        description="for a local checkpoint: the tag of the weights it holds, if open_clip's weights of the model "
        "differ in preprocessing or QuickGELU",
    )
    quick_gelu: bool | None = Field(
        None,
        description="whether the weights were trained with QuickGELU; null takes it from the same source as "
        "the preprocessing",
    )
    preprocessing: PreprocessingConfig = Field(
        default_factory=PreprocessingConfig,
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
            raise ValueError(f"pretrained: has no weights of {self.model}; give a tag or a local file")
        return self

"""model.yaml, which tells all that is needed beside the weights to build a student again."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cutsew.config.base import Channels, Spread
from cutsew.config.load import one_line
from cutsew.config.yaml_file import read_yaml
from cutsew.errors import UserError

MODEL = "model.yaml"


class _Backbone(BaseModel):
    weights_digest: str


class _Preprocessing(BaseModel):
    size: int
    resize: Literal["squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: Channels
    std: Spread


class Description(BaseModel):
    """What a student's description holds at least."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    format: Literal[1]
    classes: list[str] = Field(min_length=1)
    preprocessing: _Preprocessing
    backbone: _Backbone
    head: Literal["adapter", "linear"] = "adapter"
    adapter: dict[str, Annotated[float, Field(ge=0, le=1e9)]]
    adapter_digest: str | None = None
    weights: str | None = None
    digest: str | None = None
    thresholds: dict[str, str | list[Annotated[float, Field(ge=0, le=1)]]] | None = None

    @model_validator(mode="after")
    def weights_are_named(self) -> Self:
        """Refuse one without the digest of its weights: others could be taken for them."""
        if self.adapter_digest is None and (self.weights is None or self.digest is None):
            raise ValueError("names no weights")
        return self

    @model_validator(mode="after")
    def thresholds_fit(self) -> Self:
        """Refuse rules that have not one threshold per class, and a chosen rule that is not there."""
        rules = dict(self.thresholds or {})
        rule = rules.pop("rule", None)
        if any(not isinstance(values, list) or len(values) != len(self.classes) for values in rules.values()):
            raise ValueError("thresholds: not one for each class")
        if self.thresholds is not None and (not isinstance(rule, str) or rule not in rules):
            raise ValueError("thresholds: the rule is none of those that are there")
        return self


def read_description(path: Path) -> dict[str, Any]:
    """Read model.yaml.

    Raises:
        UserError: it is missing, or not a student's.

    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it stands beside the student's weights, so copy both")
    model: dict[str, Any] = read_yaml(path, "a student's description")
    try:
        Description.model_validate(model)
    except ValidationError as error:
        reason = one_line(error, Description)
        raise UserError(f"{path}: not a student's description ({reason}); train again to make it") from None
    return model

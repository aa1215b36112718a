"""What every section of the settings has in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""

Size = Annotated[int, Field(ge=1)]
"""A count of at least one."""


Precision = Literal["tf32", "float32", "bfloat16", "float16"]
"""Number format in which a frozen encoder computes."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused and values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""What every section of the settings has in common."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""

Size = Annotated[int, Field(ge=1)]
"""A count of at least one."""


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

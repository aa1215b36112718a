"""From a raw dictionary (YAML, snakemake's config) to checked settings, with errors that name the dotted setting."""

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cutsew.config.method import fill_in
from cutsew.config.schema import Config
from cutsew.errors import UserError

RESERVED = ("default", "features", "sweeps")
"""Folders of results/<dataset> that are the base run's, or no run's."""


def load(raw: Mapping[str, Any]) -> Config:
    """Check raw settings.

    Raises:
        UserError: one line with the dotted setting's name, what is wrong and what to do.

    """
    if not isinstance(raw, Mapping):
        raise UserError("classes: is not set, nor is any other setting; name a config file with settings")
    try:
        config = Config.model_validate(fill_in(raw))
    except ValidationError as error:
        raise UserError(one_line(error, Config)) from None
    for name, changes in config.runs.items():
        check_run_name(name)
        try:
            Config.model_validate(fill_in(override(raw, changes)))
        except ValidationError as error:
            raise UserError(f"runs.{name}: {one_line(error, Config)}") from None
    return config


def override(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings with some replaced; keys of `changes` may be dotted (`fuse.alpha`)."""
    merged = dict(raw)
    for key, value in changes.items():
        head, _, rest = str(key).partition(".")  # a key that YAML takes for a number is refused with the rest
        new = {rest: value} if rest else value
        old = merged.get(head)
        if isinstance(new, Mapping):
            merged[head] = override(old if isinstance(old, Mapping) else {}, new)
        else:
            merged[head] = new
    merged.pop("runs", None)
    return merged


def check_run_name(name: str) -> None:
    """Refuse a run's name that is not safe as a folder's."""
    if name in RESERVED or not is_folder_name(name):
        raise UserError(
            f"runs.{name}: not a name for a folder; use letters, digits and . _ = + - (and not {', '.join(RESERVED)})"
        )


def is_folder_name(name: str) -> bool:
    """Tell whether a name is safe as a folder's, in a path and in a shell."""
    return bool(name) and name[0] not in ".-" and all(c.isalnum() or c in "._=+-" for c in name)


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Word the first of pydantic's errors; say how many settings more are wrong."""
    by_setting: dict[str, list[ErrorDetails]] = {}
    for one in error.errors():
        by_setting.setdefault(_setting(one["loc"], model), []).append(one)
    where, errors = next(iter(by_setting.items()))
    more = f" (and {len(by_setting) - 1} more)" if len(by_setting) > 1 else ""
    return f"{where}: {_what(errors, model)}{more}" if where else f"{_what(errors, model)}{more}"


def _setting(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return a setting's dotted name, without the names that pydantic gives to the alternatives of a union."""
    parts: list[str] = []
    annotation: Any = model
    for part in loc:
        alternatives = [one for one in get_args(annotation) if one is not type(None)]
        if get_origin(annotation) in (Union, UnionType) and len(alternatives) > 1:
            annotation = None  # `part` names one of them
            continue
        parts.append(str(part))
        annotation = _annotation_of(annotation, str(part))
    return ".".join(parts)


def _annotation_of(annotation: Any, key: str) -> Any:  # noqa: ANN401 - types and special forms share no type
    """Return the annotation of a key of a model, of a mapping's values or of a list's items; None where unknown."""
    if get_origin(annotation) in (Union, UnionType):  # with None alone
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(key)
        return None if field is None else field.annotation
    if get_origin(annotation) not in (dict, list, tuple):
        return None
    return get_args(annotation)[-1]  # items of a tuple are all of one type here


def _what(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Word what is wrong with one setting: several errors are the alternatives that it is none of."""
    error = next((one for one in errors if one["type"] != "literal_error"), errors[0])
    words = [one["ctx"]["expected"] for one in errors if one["type"] == "literal_error" and one is not error]
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"], model)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown setting; did you mean {close[0]}?" if close else f"unknown setting; known: {', '.join(known)}"
    if error["type"] == "missing":
        return "is not set; set it in the config file"
    message = error["msg"].removeprefix("Value error, ").partition(" for <class ")[0]
    allowed = "".join(f", or {word}" for word in words)
    given = error["input"]
    shown = isinstance(given, (str, int, float, bool)) and error["type"] != "value_error"
    quotes = (
        "; put quotes around it" if error["type"] == "string_type" and not isinstance(given, (Mapping, list)) else ""
    )
    return message[0].lower() + message[1:] + allowed + (f", not {given!r}" if shown else "") + quotes


def _keys_beside(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)

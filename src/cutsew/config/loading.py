"""From a raw dictionary (YAML, snakemake's config) to checked settings, with errors that name the dotted setting."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cutsew.config.base import Kinds, kinds_of
from cutsew.config.idle import refuse_idle, without_idle
from cutsew.config.schema import Config
from cutsew.errors import UserError, did_you_mean

DEFAULT = "default"
"""Name of the base run."""

RESERVED = (DEFAULT, "features", "sweeps")
"""Folders of results/<dataset> that are the base run's, or no run's."""

RELEASED: dict[str, Any] = {
    "prompts.templates": ["a photo contains {class}"],
    "cut.passes": 30,
    "fuse.rule": "gated",
    "select.labels": "pseudo",
    "sew.q": 0.65,
    "sew.ratio": "side",
    "sew.max_overlays": 1,
    "sew.at_least_one": True,
    "train.lr_decoder": 5e-5,
    "train.strong_weight": 0.7,
    "train.em_weight": 0.5,
    "train.correct_refined": True,
}
"""The authors' released code, where it differs from the paper.

Its choice of passes by the mAP against the training labels is not among them: that is a leak. Its mistaken order of
position embeddings and its decay of the rows of Z outside a batch are not offered either.
"""

CUTSEW: dict[str, Any] = {
    "cut.layout": "auto",
    "correct.rule": "identity",
    "targets.labels_per_image": "auto",
    "thresholds.rule": "count",
    "select.top_k": "auto",
    "train.head": "linear",
    "train.epochs": "auto",
    "train.schedule": "cosine",
    "train.em_weight": 0.0,
}
"""What was found better than the paper without labels, at less cost: regions that reach an image's borders, targets
that sum to the estimated number of labels (for which the correction would be in the way), a linear head, and as many
steps and salient images as the folder needs. The E-step made labels better and students worse wherever it was tried."""

METHODS = {"paper": {}, "released": RELEASED, "cutsew": CUTSEW}
"""Value of `method` -> dotted setting -> value, where it differs from the default."""


def load(raw: Mapping[str, Any]) -> Config:
    """Validate the settings of the base run and of each run under `runs`, and return the base run's.

    Raises:
        UserError: a line per wrong setting with its dotted name, what is wrong and what to do.

    """
    return load_runs(raw)[DEFAULT]


def load_runs(raw: Mapping[str, Any]) -> dict[str, Config]:
    """Validate the settings of all runs, each once; the base run is `default`.

    Raises:
        UserError: a line per wrong setting with its dotted name, what is wrong and what to do. The settings of the
            other runs are checked once the base run's are right.

    """
    if not isinstance(raw, Mapping):
        raise UserError("classes: is not set, nor is any other setting; name a config file with settings")
    if errors := list(_unwritable(raw)):
        raise UserError(*errors)
    runs = {DEFAULT: _validated(raw)}
    for name, changes in runs[DEFAULT].runs.items():
        try:
            check_run_name(name)
            runs[name] = _validated(override(raw, changes), f"runs.{name}: ")
        except UserError as error:
            errors += error.lines
    if errors:
        raise UserError(*errors)
    return runs


def _unwritable(value: object, name: str = "") -> Iterator[str]:
    """Word text that results cannot hold: NUL, and half of a surrogate pair, which escapes of YAML and JSON write."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unwritable(key, name)
            yield from _unwritable(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _unwritable(item, name)
    elif isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        yield f"{name or 'config'}: {value!r} contains a character that text files cannot hold; remove it"


def _validated(raw: Mapping[str, Any], where: str = "") -> Config:
    """Validate one run's settings; `where` starts the message."""
    try:
        config = Config.model_validate(apply_preset(raw))
        refuse_idle(config)
    except ValidationError as error:
        raise UserError(*format_validation_errors(error, Config)).below(where) from None
    except UserError as error:
        raise error.below(where) from None
    return config


def override(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings with some replaced; keys of `changes` may be dotted (`fuse.alpha`).

    Where `changes` select a kind (`fuse.rule`, or `method`, which sets some), settings of `raw` that this kind does not
    have are left out: a run with `fuse.rule: mean` does not inherit the base run's `fuse.alpha`. So are those that
    nothing reads for another reason: a run with `student.kind: none` does not inherit `train`.
    """
    merged, nested = _merged(raw, changes), _merged({}, changes)
    merged.pop("runs", None)
    chosen = apply_preset(merged)
    for section, kinds in kinds_of(Config).items():
        ours, theirs = merged.get(section), nested.get(section, {})
        selects = "method" in nested or (isinstance(theirs, Mapping) and kinds.by in theirs)
        model = kinds.models.get(kinds.of(chosen.get(section)))
        if selects and model is not None and isinstance(ours, Mapping):
            inherited = {*model.model_fields, *theirs}
            merged[section] = {key: value for key, value in ours.items() if key in inherited}
    return without_idle(merged, nested)


def with_command_line(raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a config file and `--config`, which Snakemake has merged, as a run would change them.

    Args:
        raw: the merged settings.
        given: what `--config` set.

    """
    return {**override(raw, given), **({"runs": raw["runs"]} if "runs" in raw else {})}


def apply_preset(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which `method` has set what the user has not.

    Args:
        raw: nested settings as read from the config file, not yet validated. What is not a mapping where one should be
            is left for validation to report.

    """
    method = raw.get("method")
    preset = METHODS.get(method if isinstance(method, str) else "paper", {})
    filled = dict(raw)
    kinds = kinds_of(Config)
    for section, values in _merged({}, preset).items():
        set_by_user = raw.get(section, {})
        if not isinstance(set_by_user, Mapping):
            continue
        filled[section] = {**values, **set_by_user}
        model = kinds[section].models.get(kinds[section].of(filled[section])) if section in kinds else None
        if model is not None:  # the user may have selected another kind than the method does
            unused = {key for key in values if key not in model.model_fields} - set_by_user.keys()
            filled[section] = {key: value for key, value in filled[section].items() if key not in unused}
    return without_idle(filled, raw)


def _merged(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(raw)
    for key, value in changes.items():
        head, _, rest = str(key).partition(".")  # a key that YAML takes for a number is refused with the rest
        new = {rest: value} if rest else value
        old = merged.get(head)
        merged[head] = _merged(old if isinstance(old, Mapping) else {}, new) if isinstance(new, Mapping) else new
    return merged


def check_run_name(name: str) -> None:
    """Refuse a run's name that is not safe as a folder's."""
    if name in RESERVED or not is_folder_name(name):
        raise UserError(
            f"runs.{name}: not a name for a folder; use letters, digits and . _ = + - (and not {', '.join(RESERVED)})"
        )


def is_folder_name(name: str) -> bool:
    """Check whether a name is safe as a folder's, in a path and in a shell."""
    return bool(name) and name[0] not in ".-" and all(c.isalnum() or c in "._=+-" for c in name)


def format_validation_errors(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Word pydantic's errors: a line for each wrong setting, with its dotted name."""
    by_setting: dict[str, list[ErrorDetails]] = {}
    for one in error.errors():
        by_setting.setdefault(_setting(one, model), []).append(one)
    words = {location: _what(errors, model) for location, errors in by_setting.items()}
    return [f"{location}: {what}" if location else what for location, what in words.items()]


def _setting(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return a setting's dotted name, without the names that pydantic gives to the members of a union."""
    parts: list[str] = []
    annotation: Any = model
    for part in error["loc"]:
        members = [one for one in get_args(annotation) if one is not type(None)]
        if isinstance(annotation, Kinds):
            annotation = annotation.models[str(part)]
            continue
        if get_origin(annotation) in (Union, UnionType) and len(members) > 1:
            annotation = None  # `part` names one of them
            continue
        parts.append(str(part))
        annotation = _annotation_of(annotation, str(part))
    if error["type"] == "union_tag_invalid":
        parts.append(error["ctx"]["discriminator"].strip("'"))
    return ".".join(parts)


def _annotation_of(annotation: Any, key: str) -> Any:  # noqa: ANN401 - types and special forms share no type
    """Return the annotation of a key of a model, of a mapping's values or of a list's items; None where unknown."""
    if get_origin(annotation) in (Union, UnionType):  # with None alone
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(key)
        return kinds_of(annotation).get(key) or (None if field is None else field.annotation)
    if get_origin(annotation) not in (dict, list, tuple):
        return None
    return get_args(annotation)[-1]  # items of a tuple are all of one type here


def _what(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Word what is wrong with one setting: several errors are the members of a union that it is not one of."""
    error = next((one for one in errors if one["type"] != "literal_error"), errors[0])
    words = [one["ctx"]["expected"] for one in errors if one["type"] == "literal_error" and one is not error]
    if error["type"] == "extra_forbidden":
        return _unknown(error["loc"], model)
    if error["type"] == "missing":
        return "is not set; set it in the config file"
    if error["type"] == "union_tag_invalid":
        *others, last = error["ctx"]["expected_tags"].split(", ")
        return f"input should be {', '.join(others)} or {last}, not {error['ctx']['tag']!r}"
    message = error["msg"].removeprefix("Value error, ").partition(" for <class ")[0]
    allowed = "".join(f", or {word}" for word in words)
    value = error["input"]
    shown = isinstance(value, (str, int, float, bool)) and error["type"] != "value_error"
    quotes = (
        "; put quotes around it" if error["type"] == "string_type" and not isinstance(value, (Mapping, list)) else ""
    )
    return message[0].lower() + message[1:] + allowed + (f", not {value!r}" if shown else "") + quotes


def _unknown(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Word that there is no such setting, or that another kind of its section has it."""
    *groups, name = (str(part) for part in loc)
    known: list[str] = []
    annotation: Any = model
    for i, group in enumerate(groups):
        if not isinstance(annotation, Kinds):
            annotation = _annotation_of(annotation, group)
            continue
        if others := annotation.having(name) if i == len(groups) - 1 else []:
            by = f"{groups[i - 1]}.{annotation.by}"
            return f"is a setting of {annotation.by} {_or(others)}, and {by} is {group}; leave it out, or set {by}"
        if i == len(groups) - 1:
            known = list(dict.fromkeys(key for one in annotation.models.values() for key in one.model_fields))
        annotation = annotation.models[group]
    if not known and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = list(annotation.model_fields)
    return "unknown setting; " + (did_you_mean(name, known, 1) or f"known: {', '.join(known)}")


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))

"""Settings that nothing reads because of another setting, and that no union of kinds already rules out.

They are refused where a user sets them, and left out where `method` or the base run of a variant does.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cutsew.errors import UserError

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Idle:
    """Settings that are idle for some values of another one.

    Attributes:
        settings: dotted names, each of a section or of a setting.
        because: dotted name of the setting that decides.
        of: whether its value makes them idle; None stands for a setting that is not set.

    """

    settings: tuple[str, ...]
    because: str
    of: Callable[[Any], bool]


def _is_none(value: object) -> bool:
    return value == "none"


IDLE = (
    Idle(("sew", "select", "train", "explain"), "student.kind", _is_none),
    Idle(("select",), "sew.kind", _is_none),
    Idle(("prompts", "cut", "explain"), "teacher.kind", lambda kind: kind == "scores"),
    Idle(("fuse",), "score.rule", lambda rule: rule == "tagclip"),
    Idle(("train.lr_estimator",), "train.em_weight", lambda weight: str(weight) in ("0", "0.0")),
    Idle(("train.rates",), "train.lr", lambda rate: rate not in (None, "auto")),
    Idle(("targets.sharpen",), "targets.labels_per_image", lambda number: number is None),
    Idle(
        ("references.smoothing",),
        "references.kinds",
        lambda kinds: "smoothed" not in (kinds if isinstance(kinds, list) else []),
    ),
    Idle(
        ("prompts.wordings",),
        "prompts.names",
        lambda names: not (isinstance(names, Mapping) and any(isinstance(words, list) for words in names.values())),
    ),
    Idle(("dataset.protocol", "dataset.allow_incomplete"), "dataset.benchmark", lambda benchmark: benchmark is None),
)
"""Left out on purpose: `compute` (of the machine, for all runs of a file), `evaluate` (true labels may come later, and
rule `fixed` can always be asked for), and `cut` with score.rule tagclip (it finds views to share with other runs)."""


def without_idle(raw: Raw, wanted: Raw) -> dict[str, Any]:
    """Return nested settings without those that are idle.

    Args:
        raw: the settings.
        wanted: settings that are kept even where they are idle, to be refused by `refuse_idle`.

    """
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for rule in IDLE:
        if not rule.of(_at(raw, rule.because)):
            continue
        for name in rule.settings:
            section, _, key = name.partition(".")
            if not isinstance(kept.get(section), dict):
                continue
            there = wanted.get(section)
            ours = there if isinstance(there, Mapping) else {}
            kept[section] = {one: value for one, value in kept[section].items() if one in ours or (key and one != key)}
    return kept


def refuse_idle(config: BaseModel) -> None:
    """Refuse an idle setting that differs from its default.

    Raises:
        UserError: a line per idle setting with the setting that makes it so and what to do.

    """
    errors: dict[str, str] = {}
    values = config.model_dump(mode="json", exclude={"runs"})
    for rule in IDLE:
        value = _at(values, rule.because)
        if not rule.of(value):
            continue
        state = "unset" if value in (None, [], {}) else f"{value}"
        what = f"has no effect with {rule.because} {state}; leave it out, or change {rule.because}"
        for changed in (changed for name in rule.settings for changed in _changed(config, name)):
            errors.setdefault(changed, f"{changed}: {what}")
    if errors:
        raise UserError(*errors.values())


def _changed(config: BaseModel, name: str) -> Iterator[str]:
    """Yield the dotted names of the settings of a section, or the setting, that differ from their defaults."""
    section, _, key = name.partition(".")
    given = getattr(config, section)
    default = type(config).model_fields[section].get_default(call_default_factory=True)
    for one, field in type(given).model_fields.items():
        if key and one != key:
            continue
        other = default if one in type(default).model_fields and not key else None
        usual = getattr(other, one) if other is not None else field.get_default(call_default_factory=True)
        if getattr(given, one) != usual:
            yield f"{section}.{one}"


def _at(raw: Raw, dotted: str) -> Any:  # noqa: ANN401
    section, _, key = dotted.partition(".")
    values = raw.get(section)
    return values.get(key) if isinstance(values, Mapping) else None

"""How a model's authors make images into its input, and where that is written down.

Mean, standard deviation and interpolation belong to weights, not to a model: open_clip has ViT-L-14 with two means. A
local checkpoint does not hold them. Each comes from the first of these places that gives it:

1. the setting `preprocessing` (QuickGELU: `quick_gelu`);
2. the weights' tag: the one that is downloaded, or the setting `tag`;
3. the checkpoint's own form: OpenAI's archives can be recognized;
4. `open_clip_config.json` next to the checkpoint (timm: `config.json`);
5. all tags of the model, where they agree.

What none of them gives is refused: there is no default.

The authors' resize mode is not followed. Most cut the middle square out of an image. Here every view is squashed to a
square, as in the paper: an image must be seen to its edges, and a crop must show all of its box.

Nothing here imports torch for open_clip models, so that a refusal comes before the first job.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutsew.config.base import OpenClipModelConfig
from cutsew.config.base import PreprocessingConfig as Settings
from cutsew.config.named_models import OPEN_CLIP_CONFIG
from cutsew.config.networks import TimmModelConfig
from cutsew.errors import UserError
from cutsew.models.model_tables import IMAGES, model_config, open_clip_tags, timm_tags

RESIZE = "squash"
INTERPOLATIONS = ("bicubic", "bilinear")
TIMM_CONFIG = "config.json"
TINY, TINY_SIGMOID = "cutsew-tiny", "cutsew-tiny-sigmoid"
OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
}
"""OpenAI's, which the demo's tiny CLIPs share."""

OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
"""Names that OpenAI's archives hold among the tensors, and no others do."""

_SAME = ("timm_model_name", "layers", "width", "patch_size")
_SHOWN = 8
_EXAMPLE = "{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], interpolation: bicubic}"


@dataclass(frozen=True)
class Preprocessing:
    """What turns an image into a model's input: resized to a square, then (x / 255 - mean) / std per channel.

    Attributes:
        mean: per channel (red, green, blue), for pixels in [0, 1].
        std: standard deviation per channel.
        interpolation: bicubic or bilinear, both antialiased.
        source: where it is written down.

    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    source: str = field(default="", compare=False)

    def describe(self) -> dict[str, Any]:
        """Return it for records and model.yaml."""
        return {
            "resize": RESIZE,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }


EFFICIENTNET = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "package")
"""(x - 127.5) / 127.5 of the registry package's EfficientNet-Lite0, as timm has it; ImageNet's own mean and deviation
cost 3 points of mAP."""


@dataclass(frozen=True)
class ModelInput:
    """What must be known of an open_clip model's weights besides their tensors.

    Attributes:
        preprocessing: of images.
        quick_gelu: whether the towers compute QuickGELU instead of GELU.
        image_size: side of the square input that a configuration next to the weights gives; None for the model's own.

    """

    preprocessing: Preprocessing
    quick_gelu: bool
    image_size: int | None = None


@dataclass(frozen=True)
class Source:
    """One place where something about weights is written down.

    Attributes:
        name: of the place, for records and messages.
        says: any of mean, std, interpolation, quick_gelu and image_size.

    """

    name: str
    says: Mapping[str, Any]


def of_open_clip(settings: OpenClipModelConfig, section: str, config: Source | None = None) -> ModelInput:
    """Find preprocessing and activation of an open_clip model's weights.

    Args:
        settings: model, weights, and what the user says about them.
        section: dotted name of the settings' section, for messages.
        config: of a model that comes with its own configuration (see `from_config`); None where open_clip knows it.

    Raises:
        UserError: an unknown tag, no such file, a configuration that cannot be used, or nothing gives what is needed.

    """
    model, pretrained = settings.model, settings.pretrained or ""
    tags = open_clip_tags(model)
    local = pretrained.lower().replace("-", "_") not in tags and _may_be_a_path(pretrained)
    if settings.tag is not None and not (local and config is None):
        raise UserError(f"{section}.tag: is for a local checkpoint of a model that open_clip has; leave it out")

    def places() -> Iterator[Source]:
        yield _of_settings(settings, section)
        if config is not None:
            yield config
        elif model in (TINY, TINY_SIGMOID):
            yield Source(model, OPENAI | {"quick_gelu": False})
        elif not local or settings.tag is not None:
            yield _of_tag(settings, tags, section)
        else:
            yield from _of_local_file(settings, tags, section)

    resolved = _resolve(places(), (*IMAGES, "quick_gelu"))
    if resolved.missing:
        if config is None and tags:
            raise UserError(
                f"{section}.pretrained: {pretrained}: open_clip's weights of {model} differ in"
                f" {_listed(resolved.missing)}; set {section}.tag to the tag of those that this file holds"
                f" ({_few(tags)}), or {section}.{_settings_of(resolved.missing)}"
            )
        raise UserError(_nothing_says(f"{section}.pretrained: {pretrained or model}", resolved.missing, section))
    return ModelInput(
        resolved.preprocessing(section), bool(resolved.values["quick_gelu"]), resolved.values.get("image_size")
    )


def from_config(config: Mapping[str, Any], name: str) -> Source:
    """Read the content of an open_clip_config.json, as open_clip itself does.

    Args:
        config: its content.
        name: of the file, for records and messages.

    Raises:
        UserError: what it says cannot be used.

    """
    images, model = config.get("preprocess_cfg") or {}, config.get("model_cfg") or {}
    vision = model.get("vision_cfg") or {} if isinstance(model, Mapping) else None
    if not isinstance(images, Mapping) or not isinstance(vision, Mapping):
        raise UserError(f"{name}: preprocess_cfg or model_cfg is not an object; restore the file of the model")
    says = _of_images(images, name)
    if "mean" in says and "std" in says:
        says.setdefault("interpolation", "bicubic")  # open_clip's own default for such a file
    if model:
        says["quick_gelu"] = bool(model.get("quick_gelu", False))
    size = vision.get("image_size", images.get("size"))
    if size is not None:
        says["image_size"] = _side(size, name)
    return Source(name, says)


def of_timm(settings: TimmModelConfig, section: str = "student.timm") -> Preprocessing:
    """Find the preprocessing of a timm model's weights.

    Args:
        settings: model, weights, and what the user says about them.
        section: dotted name of the settings' section, for messages.

    Raises:
        UserError: a configuration next to the checkpoint that cannot be used, or nothing gives what is needed.

    """
    model, weights = settings.model, settings.weights

    def places() -> Iterator[Source]:
        yield _of_settings(settings, section)
        if weights == "package":
            yield Source("package", EFFICIENTNET.describe())
            return
        tags = timm_tags(model)
        if tags and ("." in model or weights == "pretrained"):
            yield Source(f"tag {next(iter(tags))}", next(iter(tags.values())))
            return
        yield from _of_timm_config(Path(weights).with_name(TIMM_CONFIG), model)
        yield _of_all(tags, IMAGES, f"all weights that timm has of {model}")

    resolved = _resolve(places(), IMAGES)
    if resolved.missing:
        tags = timm_tags(model)
        if tags:
            raise UserError(
                f"{section}.weights: {weights}: timm's weights of {model} differ in {_listed(resolved.missing)}; set"
                f" {section}.model to the name with the tag of those that this file holds ({_few(tags)}), or"
                f" {section}.{_settings_of(resolved.missing)}"
            )
        raise UserError(_nothing_says(f"{section}.weights: {weights}", resolved.missing, section))
    return resolved.preprocessing(section)


@dataclass(frozen=True)
class _Found:
    """What the places gave together."""

    values: dict[str, Any]
    names: dict[str, str]
    missing: list[str]

    def preprocessing(self, section: str) -> Preprocessing:
        interpolation = str(self.values["interpolation"])
        if interpolation not in INTERPOLATIONS:
            raise UserError(
                f"{self.names['interpolation']}: resizes images by {interpolation}, which is not among"
                f" {', '.join(INTERPOLATIONS)}; set {section}.preprocessing.interpolation to the nearest of them"
            )
        mean, std = (tuple(float(value) for value in self.values[name]) for name in ("mean", "std"))
        return Preprocessing(mean, std, interpolation, ", ".join(dict.fromkeys(self.names[name] for name in IMAGES)))


def _resolve(places: Iterable[Source], keys: tuple[str, ...]) -> _Found:
    """Take each thing from the first place that gives it; places after that are not opened."""
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for place in places:
        for key, value in place.says.items():
            if key not in values:
                values[key], names[key] = value, place.name
        if all(key in values for key in keys):
            break
    return _Found(values, names, [key for key in keys if key not in values])


def _of_settings(settings: OpenClipModelConfig | TimmModelConfig, section: str) -> Source:
    explicit: Settings = settings.preprocessing
    says = explicit.model_dump(exclude_none=True)
    quick_gelu = getattr(settings, "quick_gelu", None)
    return Source(f"{section}.preprocessing", says if quick_gelu is None else says | {"quick_gelu": quick_gelu})


def _of_tag(settings: OpenClipModelConfig, tags: Mapping[str, Mapping[str, Any]], section: str) -> Source:
    setting, named = ("pretrained", settings.pretrained or "") if settings.tag is None else ("tag", settings.tag)
    tag = named.lower().replace("-", "_")  # as open_clip reads it
    if tag not in tags:
        has = ", ".join(tags) or "none"
        rest = " or a local file" if setting == "pretrained" else ""
        raise UserError(
            f"{section}.{setting}: {settings.model} has no weights {named} (it has: {has}); give one of them{rest}"
        )
    quick_gelu = bool(
        model_config(settings.model).get("quick_gelu")
    )  # open_clip's models of that name have it whatever
    return Source(f"tag {tag}", {**tags[tag], "quick_gelu": quick_gelu or tags[tag]["quick_gelu"]})


def _of_local_file(
    settings: OpenClipModelConfig, tags: Mapping[str, Mapping[str, Any]], section: str
) -> Iterator[Source]:
    path, model = Path(settings.pretrained or ""), settings.model
    if not path.is_file():
        raise UserError(f"{section}.pretrained: {path}: no such file; give the path of a checkpoint that is there")
    if _is_openais(path):
        yield Source("OpenAI's archive", OPENAI | {"quick_gelu": True})
    expected = model_config(model)
    config_path = path.with_name(OPEN_CLIP_CONFIG)
    if config_path.is_file():
        content = _read(config_path)
        says = from_config(content, str(config_path))
        _refuse_another_model(content.get("model_cfg") or {}, expected, config_path, settings.model, section)
        yield says
    if expected.get("quick_gelu") or not tags:
        yield Source(f"open_clip's {model}", {"quick_gelu": bool(expected.get("quick_gelu", False))})
    yield _of_all(tags, (*IMAGES, "quick_gelu"), f"all weights that open_clip has of {model}")


def _is_openais(path: Path) -> bool:
    """Detect it by the names in the index of a torch file, which is a zip; no tensor is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            index = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            names = b"" if index is None else archive.read(index)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error):
        return False  # of another kind, or damaged, which the reader of its tensors reports
    return all(name.encode() in names for name in OPENAI_SIZES)


def _of_timm_config(config_path: Path, model: str) -> Iterator[Source]:
    """Read the config.json of timm's hub format; that of another library is passed over."""
    if not config_path.is_file():
        return
    content = _read(config_path)
    images = content.get("pretrained_cfg")
    if not isinstance(images, Mapping):
        return
    arch = content.get("architecture", model)
    if arch != model:
        raise UserError(
            f"{config_path}: describes {arch}, not {model}; keep each checkpoint in a folder of its own, with its own"
            f" {TIMM_CONFIG}"
        )
    yield Source(str(config_path), _of_images(images, str(config_path)))


def _of_all(tags: Mapping[str, Mapping[str, Any]], keys: Iterable[str], name: str) -> Source:
    """Give what all tags agree on."""
    says = {}
    for key in keys:
        by_text = {str(tag.get(key)): tag.get(key) for tag in tags.values()}
        if len(by_text) == 1:
            says[key] = next(iter(by_text.values()))
    return Source(name, {key: value for key, value in says.items() if value is not None})


def _of_images(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Take mean, std and interpolation from a JSON object, as far as it gives them."""
    says: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = values.get(key)
        if value is None:
            continue
        numbers = value if isinstance(value, list) else [value] * 3
        sound = [isinstance(n, int | float) and math.isfinite(n) and (key == "mean" or n > 0) for n in numbers]
        if len(numbers) != 3 or not all(sound):
            raise UserError(f"{name}: {key} is {value!r}, not three numbers; restore the file of the model")
        says[key] = numbers
    if values.get("interpolation") is not None:
        says["interpolation"] = values["interpolation"]
    return says


def _side(size: object, name: str) -> int:
    sides = size if isinstance(size, list) else [size]
    if not sides or len(set(map(str, sides))) != 1 or type(sides[0]) is not int or sides[0] < 1:
        raise UserError(f"{name}: its image size is {size!r}, not that of a square; restore the file of the model")
    return int(sides[0])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read as JSON; restore the file of the model, or remove it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object; restore the file of the model, or remove it")
    return content


def _refuse_another_model(
    theirs: Mapping[str, Any], expected_config: Mapping[str, Any], config_path: Path, model: str, section: str
) -> None:
    """Refuse a configuration of another architecture: in a folder of many checkpoints it describes one of them."""
    pairs = [("embed_dim", theirs.get("embed_dim"), expected_config.get("embed_dim"))]
    tower, wanted_tower = theirs.get("vision_cfg") or {}, expected_config.get("vision_cfg") or {}
    pairs += [(f"vision_cfg.{name}", tower.get(name), wanted_tower.get(name)) for name in _SAME]
    for name, actual, expected in pairs:
        if actual is not None and expected is not None and actual != expected:
            raise UserError(
                f"{config_path}: describes another model than {model} ({name} is {actual}, not {expected}); correct"
                f" {section}.model, or keep each checkpoint in a folder of its own, with its {OPEN_CLIP_CONFIG}"
            )


def _may_be_a_path(text: str) -> bool:
    return "/" in text or bool(Path(text).suffix) or Path(text).is_file()


def _nothing_says(what: str, missing: list[str], section: str) -> str:
    example = "" if missing == ["quick_gelu"] else f", such as {_EXAMPLE}"
    return (
        f"{what}: nothing gives its {_listed(missing)}; set {section}.{_settings_of(missing)} to what it was trained"
        f" with{example}, or put the model's configuration file next to it"
    )


def _settings_of(missing: list[str]) -> str:
    """Name the settings that give what is missing."""
    images, activation = set(missing) & set(IMAGES), "quick_gelu" in missing
    return " and ".join([*(["preprocessing"] if images else []), *(["quick_gelu"] if activation else [])])


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _few(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join([*shown[:_SHOWN], *(["..."] if len(shown) > _SHOWN else [])])

"""Checks of teacher and student before any job starts; no model is loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cutsew.config import Config, named_models
from cutsew.config.base import OpenClipModelConfig
from cutsew.config.cutting import STRIDE, not_whole_cells
from cutsew.config.named_models import OPEN_CLIP_CONFIG, is_named
from cutsew.errors import UserError, no_patches
from cutsew.models.activation import (
    IDLE_BACKGROUND,
    NO_LIKELIEST,
    ONE_CLASS,
    ONE_CLASS_OF_SCORES,
    SOFTMAX_OVER_PATCHES,
    activation_of,
    no_bias,
    trained_with,
)
from cutsew.models.model_tables import is_at_hand, model_config
from cutsew.models.preprocessing import from_config, of_open_clip, of_timm
from cutsew.pipeline import network_work
from cutsew.pipeline.resolve import REBUILT, patch_of

WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".tar", ".json", ".onnx", ".npz")


def check_weights(config: Config) -> None:
    """Refuse weights files that are not there."""
    for name, named in _open_clip_models(config):
        if named.pretrained is not None:
            _check_file(f"{name}.pretrained", named.pretrained, _looks_like_a_path)
        _check_open_clip(named, name)
    student = config.student
    if student.kind == "timm":
        _check_file("student.timm.weights", student.timm.weights, lambda text: text not in ("package", "pretrained"))


def check_preprocessing(config: Config) -> None:
    """Refuse weights of which nothing says how images are preprocessed, and tags that open_clip does not have."""
    for name, named in _open_clip_models(config):
        if is_named(named.model):
            if _is_here(named.model):
                content = named_models.read_config(named.model, f"{name}.model")
                of_open_clip(named, name, from_config(content, f"{named.model}/{OPEN_CLIP_CONFIG}"))
        elif model_config(named.model):
            of_open_clip(named, name)
    student = config.student
    if student.kind == "timm" and student.timm.weights not in ("package", "pretrained"):
        of_timm(student.timm)


def _open_clip_models(config: Config) -> Iterator[tuple[str, OpenClipModelConfig]]:
    """Give the sections that name open_clip models, but for weights that the workflow makes first."""
    for name, section in (("teacher", config.teacher), ("student", config.student)):
        if section.kind != "open_clip":
            continue
        if not (config.dataset.rebuilds_teacher and Path(section.open_clip.pretrained or "").name == REBUILT):
            yield f"{name}.open_clip", section.open_clip


def _is_here(model: str) -> bool:
    """Check whether a model by name must be on this machine: a folder, or a repository without the hub."""
    return model.startswith(named_models.FOLDER) or named_models.hub_is_off()


def _check_open_clip(settings: OpenClipModelConfig, section: str) -> None:
    """Refuse weights, tokenizers and packages that are known to be missing; nothing is downloaded."""
    model, weights = settings.model, settings.pretrained
    if not is_named(model):
        local = weights if weights is not None and _looks_like_a_path(weights) else None
        named_models.check(model, model_config(model), local, f"{section}.model")
        if local is None and named_models.hub_is_off() and not is_at_hand(model, weights or ""):
            raise UserError(
                f"{section}.pretrained: {weights} of {model} is not in the hub's cache, and HF_HUB_OFFLINE is set;"
                f" give a local file; {named_models.OFFLINE}"
            )
    elif _is_here(model):
        content = named_models.read_config(model, f"{section}.model")
        named_models.weights_file(model, f"{section}.model")
        named_models.check(model, content["model_cfg"], None, f"{section}.model")


def check_tower(config: Config) -> None:
    """Refuse what the teacher's tower cannot do, as far as open_clip's model config states it; loads neither."""
    teacher = config.teacher
    for name, named in _open_clip_models(config):
        vision = model_config(named.model).get("vision_cfg") or {}
        least = STRIDE if isinstance(vision.get("layers"), list) else vision.get("patch_size", 1)
        if named.image_size is not None and isinstance(least, int) and named.image_size < least:
            raise UserError(
                f"{name}.image_size: {named.image_size} is less than one cell of {named.model}'s grid, {least} pixels;"
                " set it to a multiple of that"
            )
    known = teacher.kind == "conse" or (teacher.kind == "open_clip" and _says_its_side(teacher.open_clip))
    if config.cut.layout == "windows" and known:
        refusal = config.cut.windows.lacks_places(network_work.teacher_side(config))
        if refusal is not None:
            raise UserError(refusal)
    if teacher.kind != "open_clip":
        return
    model = teacher.open_clip.model
    vision = model_config(model).get("vision_cfg") or {}
    residual, timm = isinstance(vision.get("layers"), list), "timm_model_name" in vision
    if config.score.rule == "tagclip" and (residual or timm):
        raise UserError(no_patches(model, "a tower of timm's" if timm else "a ResNet"))
    cell = STRIDE if residual else patch_of(vision)
    for side in (level.side for level in (config.cut.tiles if config.cut.layout == "tiles" else ())):
        refusal = not_whole_cells(side, cell, model) if side is not None and cell is not None else None
        if refusal is not None:
            raise UserError(refusal)
    if config.cut.layout == "windows" and vision and not (residual or timm):
        raise UserError(
            f"cut.layout: windows needs a convolutional tower, and {model}'s is a vision transformer; set tiles"
        )


def _says_its_side(named: OpenClipModelConfig) -> bool:
    """Check whether the side of an open_clip teacher's views is known here."""
    return bool(named.image_size or model_config(named.model))


def check_activation(config: Config) -> None:
    """Refuse what a teacher's activation rules out, as far as its config states it; stage text checks the rest."""
    teacher, prompts = config.teacher, config.prompts
    activation = activation_of(config.score, teacher, len(config.classes))
    if activation == "sigmoid" and teacher.kind != "scores":
        if trained_with(teacher) == "softmax":
            raise UserError(no_bias("conse" if teacher.kind == "conse" else teacher.open_clip.model))
        if prompts.background:
            raise UserError(IDLE_BACKGROUND)
        if config.score.rule == "tagclip":
            raise UserError(SOFTMAX_OVER_PATCHES)
    if activation == "sigmoid" and config.fuse.rule == "soft" and config.fuse.soften == "auto":
        raise UserError(NO_LIKELIEST)
    if activation == "softmax":
        words = [] if teacher.kind == "scores" else prompts.background_beside(config.classes)
        if len(config.classes) + len(words) == 1:
            hint = f" (are commas missing in {config.classes[0]!r}?)" if " " in config.classes[0] else ""
            raise UserError((ONE_CLASS if teacher.kind != "scores" else ONE_CLASS_OF_SCORES) + hint)


def _check_file(setting: str, text: str, is_path: Callable[[str], bool]) -> None:
    if is_path(text) and not Path(text).exists():
        raise UserError(f"{setting}: {text} does not exist; name an existing file of weights, or a tag")


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or text.lower().endswith(WEIGHTS_SUFFIXES)

"""Stage text: embeddings of the class names."""

import logging
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cutsew.config.method import Score, parse_score
from cutsew.config.networks import OpenClipTeacherConfig, PromptsConfig, Teacher, parse_teacher
from cutsew.errors import UserError
from cutsew.method.prompts import average_of, coinciding, fill
from cutsew.models import teachers
from cutsew.models.activation import IDLE_BACKGROUND, ONE_CLASS, activation_of, no_bias
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record
from cutsew.runtime.batching import require_finite
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import DeviceOption, SettingsOption
from cutsew.storage.text_embeddings import text_spec
from cutsew.storage.zarr_layout import Activation
from cutsew.storage.zarr_writer import Labels, write_group

log = logging.getLogger(__name__)

SAME = 0.9999
"""Cosine above which the teacher cannot distinguish two classes."""


def text(
    group: Annotated[Path, typer.Argument(help="text.zarr, written")],
    settings: SettingsOption,
    device: DeviceOption = "auto",
) -> None:
    """Embed the class names."""
    record = Record("text", STAGES["text"].version, settings)
    prompts = PromptsConfig.model_validate(settings["prompts"])
    scoring = parse_score(settings.get("score", {}))
    classes: list[str] = settings["classes"]
    teacher_settings = parse_teacher(settings["teacher"])
    place = pick_device(device)
    teacher = teachers.build(teacher_settings, place)
    background = prompts.background_beside(classes)
    activation = _activation(scoring, teacher_settings, teacher.logit_bias, len(classes))
    _refuse_unfit(activation, prompts, len(classes), len(background))
    left_out = sorted(set(prompts.background) - set(background))
    if left_out:
        log.warning("prompts.background: %s excluded: they name a class", ", ".join(left_out))

    words, templates = prompts.wordings_of(classes), prompts.templates
    texts = fill(templates, words)
    flat = [one for of_class in texts for one in of_class]
    embedded = teacher.embed_texts(flat)
    require_finite(
        embedded.numpy(),
        [f"classes: {name}" for name, of_class in zip(classes, texts, strict=True) for _ in of_class],
        "the teacher's embedding of its texts",
    )
    averaged = average_of(embedded, [len(of_class) for of_class in texts])
    arrays = {"text": (text_spec(averaged.numpy(), "class"), averaged.numpy())}
    coordinates: dict[str, Labels] = {"class": classes}
    attributes: dict[str, Any] = {
        "texts": texts,
        "templates": templates,
        "logit_scale": teacher.logit_scale,
        "logit_bias": teacher.logit_bias,
        "activation": activation,
        "weights": teacher.weights_digest,
    }
    scored, owners = averaged, list(range(len(classes)))
    sizes = [len(of_class) for of_class in words]
    if prompts.wordings == "best" and max(sizes) > 1:
        scored = average_of(embedded, [len(templates)] * sum(sizes))
        owners = [index for index, size in enumerate(sizes) for _ in range(size)]
        arrays["wordings"] = (text_spec(scored.numpy(), "wording"), scored.numpy())
        coordinates["wording"] = [word for of_class in words for word in of_class]
        attributes["wordings"] = sizes
    if background:
        filled = [one for of_word in fill(templates, [[word] for word in background]) for one in of_word]
        background_embeddings = average_of(teacher.embed_texts(filled), [len(templates)] * len(background))
        require_finite(
            background_embeddings.numpy(),
            [f"prompts.background: {word}" for word in background],
            "the teacher's embedding of its texts",
        )
        arrays["background"] = (text_spec(background_embeddings.numpy(), "word"), background_embeddings.numpy())
        coordinates["word"] = background
    _warn_of_twins(scored, owners, classes)
    write_group(group, arrays, coordinates, attributes)
    record.facts = {"weights": teacher.weights_digest, **device_facts(place), "width": teacher.width}
    record.facts |= {"preprocessing": teacher.preprocessing.describe()}
    record.facts |= {"preprocessing_from": teacher.preprocessing.source}
    record.facts |= {"activation": activation, "logit_scale": teacher.logit_scale, "logit_bias": teacher.logit_bias}
    record.write_beside(group)


def _activation(scoring: Score, teacher: Teacher, bias: float | None, classes: int) -> Activation:
    """Return how the teacher answers.

    Raises:
        UserError: by a sigmoid, but its weights hold no bias.

    """
    stored = activation_of(scoring, teacher, classes)
    if stored == "sigmoid" and bias is None:
        raise UserError(no_bias(_name(teacher) if isinstance(teacher, OpenClipTeacherConfig) else teacher.kind))
    return stored or ("softmax" if bias is None else "sigmoid")


def _name(teacher: OpenClipTeacherConfig) -> str:
    return f"{teacher.open_clip.pretrained} of {teacher.open_clip.model}"


def _refuse_unfit(activation: Activation, prompts: PromptsConfig, classes: int, background: int) -> None:
    """Refuse again what is refused before the first job where the teacher's description is at hand."""
    if activation == "sigmoid" and prompts.background:
        raise UserError(IDLE_BACKGROUND)
    if activation == "softmax" and classes + background == 1:
        raise UserError(ONE_CLASS)


def _warn_of_twins(embedded: torch.Tensor, owners: list[int], classes: list[str]) -> None:
    """Warn of classes with a text that the teacher cannot distinguish from another class's.

    Args:
        embedded: (W, D), L2-normalized.
        owners: (W,) number of the class of each row.
        classes: names.

    """
    pairs = {(owners[i], owners[j]): None for i, j in coinciding(embedded, SAME) if owners[i] != owners[j]}
    if pairs:
        first, second = next(iter(pairs))
        log.warning(
            "classes: the teacher cannot distinguish %s from %s (%d such pairs); reword them in prompts.names",
            classes[first],
            classes[second],
            len(pairs),
        )

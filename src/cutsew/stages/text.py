"""Stage text: embeddings of the class names."""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

from cutsew import teachers
from cutsew.artefacts.layout import Spec
from cutsew.artefacts.record import Record
from cutsew.artefacts.store import write_group
from cutsew.config.teacher import Prompts, Teacher
from cutsew.device import pick_device
from cutsew.finite import refuse_not_finite
from cutsew.numerics.prompts import average, coinciding, fill
from cutsew.pipeline import STAGES
from cutsew.stages.options import DeviceOption, SettingsOption

log = logging.getLogger(__name__)

SAME = 0.9999
"""Cosine above which the teacher cannot tell two classes apart."""


def text(
    group: Annotated[Path, typer.Argument(help="text.zarr, written")],
    settings: SettingsOption,
    device: DeviceOption = "auto",
) -> None:
    """Embed the class names."""
    record = Record("text", STAGES["text"].version, settings)
    prompts = Prompts.model_validate(settings["prompts"])
    classes: list[str] = settings["classes"]
    texts = fill(prompts.templates, prompts.names, classes)
    place = pick_device(device)
    teacher = teachers.build(Teacher.model_validate(settings["teacher"]), place)
    flat = [one for of_class in texts for one in of_class]
    embedded = average(teacher.embed_texts(flat).reshape(len(classes), len(prompts.templates), teacher.width))
    refuse_not_finite(
        embedded.numpy(), [f"classes: {name}" for name in classes], "the teacher's embedding of its texts"
    )
    _warn_of_twins(embedded, classes)
    spec = Spec(tuple(embedded.shape), "float32", ("class", "embedding"), tuple(embedded.shape))
    attributes = {
        "texts": texts,
        "templates": prompts.templates,
        "logit_scale": teacher.logit_scale,
        "weights": teacher.weights_digest,
    }
    write_group(group, {"text": (spec, embedded.numpy())}, {"class": classes}, attributes)
    record.facts = {"weights": teacher.weights_digest, "device": place, "width": teacher.width}
    record.facts |= {"preprocessing": teacher.preprocessing.describe()}
    record.facts |= {"preprocessing_from": teacher.preprocessing.source}
    record.write_beside(group)


def _warn_of_twins(embedded: torch.Tensor, classes: list[str]) -> None:
    twins = coinciding(embedded, SAME)
    if twins:
        i, j = twins[0]
        log.warning(
            "classes: the teacher cannot tell %s from %s (%d such pairs); reword them in prompts.names",
            classes[i],
            classes[j],
            len(twins),
        )

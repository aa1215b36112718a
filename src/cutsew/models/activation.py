"""Whether a teacher's answers are a softmax or sigmoids: known from its description, before it is loaded."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from cutsew import demo
from cutsew.config.method import Score
from cutsew.config.named_models import is_named, known_config
from cutsew.config.networks import Teacher
from cutsew.storage.zarr_layout import Activation

ONE_CLASS = (
    "classes: one class needs something to compete with, or its softmax is always 1; add a class, set "
    "prompts.background, or take a teacher trained with a sigmoid (SigLIP)"
)


def described(model: str) -> dict[str, Any] | None:
    """Read open_clip's own description of a model, without importing open_clip.

    Returns:
        The model's config; None where it is not on this machine, or unknown.

    """
    return (known_config(model) or None) if is_named(model) else _shipped(model)


@cache
def _shipped(model: str) -> dict[str, Any] | None:
    """Read the description that a package has of a model by its name."""
    spec = importlib.util.find_spec("open_clip")
    places = [Path(place, "model_configs") for place in (spec.submodule_search_locations or [])] if spec else []
    candidates = [place / f"{model.replace('/', '-')}.json" for place in [*places, Path(demo.__path__[0])]]
    return next((_json(path) for path in candidates if path.is_file()), None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def trained_with(teacher: Teacher) -> Activation | None:
    """Return what a teacher was trained with; None if only loading it can tell, and for imported scores."""
    if teacher.kind == "conse":
        return "softmax"
    model = described(teacher.open_clip.model) if teacher.kind == "open_clip" else None
    if model is None:
        return None
    return "softmax" if model.get("init_logit_bias") is None else "sigmoid"


def activation_of(score: Score, teacher: Teacher, classes: int) -> Activation | None:
    """Return the configured activation; None if it depends on loading the teacher.

    Scores made elsewhere are taken for a softmax, as in the paper, but of a single class, which no softmax can score.
    """
    if score.activation != "auto":
        return score.activation
    if teacher.kind == "scores":
        return "sigmoid" if classes == 1 else "softmax"
    return trained_with(teacher)


def no_bias(model: str) -> str:
    """Word why a model cannot answer by a sigmoid."""
    return (
        f"score.activation: sigmoid needs the logit bias of a model trained with a sigmoid loss (SigLIP, SigLIP2), and "
        f"{model} has none; set it to softmax"
    )


IDLE_BACKGROUND = (
    "prompts.background: takes part in a softmax, and this teacher judges each class on its own by a sigmoid; leave it "
    "out, or set score.activation: softmax"
)
SOFTMAX_OVER_PATCHES = (
    "score.rule: tagclip is a softmax over each patch, and this teacher was trained with a sigmoid; set "
    "score.activation: softmax, or score.rule: softmax"
)
NO_LIKELIEST = (
    "fuse.soften: auto looks at each image's likeliest class, and with a sigmoid an image may show none; give a number"
)
ONE_CLASS_OF_SCORES = (
    "score.activation: a softmax over one class is always 1; set it to sigmoid or auto, or score a second class"
)

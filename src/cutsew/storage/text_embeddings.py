"""text.zarr: the embeddings that views are scored against, and how their similarity becomes a logit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cutsew.method.score import Floats
from cutsew.method.score import score as score_views
from cutsew.storage.zarr_layout import Answers, ArraySpec
from cutsew.storage.zarr_reader import array_of, attribute, open_group, read

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Texts:
    """What text.zarr holds for the scoring of views.

    Attributes:
        classes: (C, D) float32, one embedding per class, L2-normalized: the average of all its texts.
        wordings: (W, D), one embedding per wording, class by class, where the best wording counts; else `classes`.
        sizes: (C,) wordings of each class in `wordings`; None where that is `classes`.
        background: (B, D) of words that name no class, which take part in the softmax; B may be 0.
        scale: logit scale.
        bias: logit bias of the sigmoid; None for a softmax.
        weights: digest of the teacher's weights.

    """

    classes: Float32Array
    wordings: Float32Array
    sizes: tuple[int, ...] | None
    background: Float32Array
    scale: float
    bias: float | None
    weights: str

    @property
    def answers(self) -> Answers:
        """What kind of logits `score` gives."""
        return Answers("softmax" if self.bias is None else "sigmoid", len(self.background))

    def score(self, embeddings: Floats, epsilon: float) -> Float32Array:
        """Score views, (..., D) to (..., C) logits; see `method.score.score`."""
        background = self.background if len(self.background) else None
        return score_views(
            embeddings, self.wordings, self.scale, epsilon, bias=self.bias, wordings=self.sizes, background=background
        )


def text_spec(values: Float32Array, dimension: str) -> ArraySpec:
    """Describe an array of embeddings, one chunk."""
    return ArraySpec(tuple(values.shape), "float32", (dimension, "embedding"), tuple(values.shape))


def read_texts(path: Path) -> Texts:
    """Read text.zarr.

    Args:
        path: the group's folder or the `zarr.json` in it.

    Raises:
        UserError: not a finished group, or it lacks what those of this version hold.

    """
    group = open_group(path)
    attributes: dict[str, Any] = dict(group.attrs)
    classes = read(array_of(group, "text"))
    best = "wordings" in attributes
    return Texts(
        classes=classes,
        wordings=read(array_of(group, "wordings")) if best else classes,
        sizes=tuple(attributes["wordings"]) if best else None,
        background=read(array_of(group, "background")) if "background" in group else classes[:0],
        scale=float(attribute(group, "logit_scale")),
        bias=float(attribute(group, "logit_bias")) if attributes.get("activation") == "sigmoid" else None,
        weights=str(attribute(group, "weights")),
    )

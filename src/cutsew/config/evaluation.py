"""Settings of what follows training: predictions, decision thresholds, corrections, evaluation and explanations."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cutsew.config.base import Fraction, OneOf, Section, Size


class EvaluateConfig(Section):
    """What is measured, of true labels too where there are any."""

    threshold: Fraction = Field(
        0.5, description="decision threshold of rule fixed: the probability from which a class is predicted"
    )
    top: Size = Field(3, description="n, number of predicted classes per image for the top-n metrics")


class PredictConfig(Section):
    """How held-out images are scored."""

    ensemble: Literal["none", "teacher"] = Field(
        "none",
        description="teacher: also combine the student's logits with the fused teacher's (ensemble.zarr, a separate "
        "row in every table); better than either alone, at M + 1 teacher views per image",
    )
    tiles: bool = Field(
        False,
        description="test-time tiling: the student also scores four overlapping tiles of each image (tiles.zarr, a "
        "separate row in every table); better for small objects, at five student views per image instead of one",
    )


class ThresholdsConfig(Section):
    """Decision thresholds, per stage and class: what is a label in tables, report, exports and on new images."""

    rule: Literal["fixed", "count", "mixture"] = Field(
        "fixed",
        description="fixed: evaluate.threshold for all classes (the paper's); count: each class is a label of as many "
        "images as its labels' probabilities sum to; mixture: separates two Gaussians fitted to the logits",
    )


Reference = Literal["zero_shot", "supervised", "smoothed", "single_positive"]
"""A student to hold the method's against; all but the first need true labels."""


class LabelsConfig(Section):
    """A human's audit of the labels, kept apart from the label-free path."""

    overrides: Path | None = Field(
        None,
        description="corrected labels: a CSV (image, class, present 1 or 0; by and at are kept), as the report's page "
        "writes it; an edited copy of labels.csv; or Label Studio's export as JSON. They win in exports, audit and "
        "report; training starts from those of training images, and those of held-out images train nothing",
    )


class ReferencesConfig(Section):
    """Students without cutting and sewing, to place the method between its floor and its ceiling."""

    kinds: list[Reference] = Field(
        [],
        description="baseline students trained on other labels, without sewing and E-step: zero_shot (naive "
        "distillation), "
        "supervised (true labels), smoothed (true labels, smoothed), single_positive (one random true label per image)",
    )
    smoothing: float = Field(0.1, gt=0, lt=1, description="label smoothing of kind smoothed")


class ExplainConfig(Section):
    """What the report shows of how teacher and student see (paper, Figures 8, 11 and 12), chosen without truth."""

    kind: Literal["maps"] = Field("maps", description="class activation maps and a t-SNE plot of features")
    num_maps: Size = Field(
        40,
        description="maximum number of class activation maps: each class in the image with its highest logit, and that "
        "image's second predicted class",
    )
    num_embeddings: Size = Field(
        600, description="number of images whose features are stored before and after training, for the t-SNE plot"
    )


class NoExplainConfig(Section):
    """A report without maps and features."""

    kind: Literal["none"] = Field("none", description="leaves the stage out")


Explain = Annotated[ExplainConfig | NoExplainConfig, OneOf("kind")]
"""What the report shows of the networks, by `explain.kind`."""

"""Settings of scoring, fusion, correction, targets and sewing (paper, Sections 3.2 and 3.3), one model per rule."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cutsew.config.base import Fraction, OneOf, Section, Size

BACKGROUND = (
    "ground land grass tree building wall sky lake water river sea railway railroad keyboard helmet cloud house "
    "mountain ocean road rock street valley bridge sign"
)
"""What TagCLIP's authors add to the classes of PASCAL VOC."""


class TagClipConfig(Section):
    """TagCLIP's local-to-global scoring (Lin et al., AAAI 2024)."""

    background: list[str] = Field(
        BACKGROUND.split(),
        description="background words that take part in the softmax over each patch; words that name a class are "
        "ignored",
    )
    patches: Size = Field(
        1600,
        description="maximum number of patches per image, which is read at its own size and aspect ratio and "
        "shrunk only beyond this",
    )
    blocks: int = Field(
        3, ge=0, description="blocks before the last whose attention refines the patches' scores; 0 disables it"
    )
    votes: Size = Field(
        4, description="number of blocks whose attention must be above average for one patch to contribute to another"
    )
    candidates: Fraction = Field(
        0.5,
        description="position of a class between the image's lowest (0) and highest (1) score from which its region "
        "is scored again; 1 disables the second score",
    )
    weight: Fraction = Field(0.5, description="weight of the region's score relative to the best patch's")


class ScoringConfig(Section):
    """What all rules share: from the teacher's similarities to logits."""

    rule: str
    activation: Literal["auto", "softmax", "sigmoid"] = Field(
        "auto",
        description="softmax over the classes (CLIP); sigmoid: each class on its own, scale * cosine + bias "
        "(SigLIP, SigLIP2); auto: what the teacher was trained with",
    )
    epsilon: float = Field(
        1e-6, gt=0, lt=0.5, description="probabilities of a softmax are clamped to [epsilon, 1 - epsilon]"
    )

    @property
    def keeps_crop_logits(self) -> bool:
        """Whether the logits of all crops are stored."""
        return True


class SoftmaxScoringConfig(ScoringConfig):
    """The paper's scores (Eq. 3-4)."""

    rule: Literal["softmax"] = Field(
        "softmax", description="Eq. 3-4 on the whole image and crops, which are then fused"
    )
    keep: Literal["all", "none"] = Field(
        "all",
        description="crop logits that are stored: all; none: only each class's highest crop and its pass (and the "
        "lowest, for fuse.rule cdul), from which rules max and cdul give the same labels for any alpha, space and zeta",
    )

    @property
    def keeps_crop_logits(self) -> bool:
        """Whether the logits of all crops are stored."""
        return self.keep == "all"


class TagClipScoringConfig(ScoringConfig):
    """TagCLIP's scores of patches and regions in place of the crops'."""

    rule: Literal["tagclip"] = Field(
        "tagclip",
        description="refined patch scores and a second score per class region instead (Lin et al., AAAI 2024), for "
        "open_clip ViT teachers",
    )
    tagclip: TagClipConfig = Field(default_factory=TagClipConfig, description="patches and regions")


Score = Annotated[SoftmaxScoringConfig | TagClipScoringConfig, OneOf("rule")]
"""The settings of the scores, by `score.rule`."""

parse_score = TypeAdapter[Score](Score).validate_python
"""Return the settings of the scores from a mapping."""


ALPHA = "suppression of the crops relative to the whole image"


class FusionConfig(Section):
    """What all fusion rules share: from the logits of all views to one per class (Eq. 7)."""

    rule: str
    passes: int | None = Field(None, ge=0, description="number of the M passes that are fused; null for all")


class MaxFusionConfig(FusionConfig):
    """The paper's rule."""

    rule: Literal["max"] = Field("max", description="Eq. 7")
    space: Literal["logit", "probability"] = Field(
        "logit", description="where alpha is subtracted; logit is the paper's"
    )
    alpha: float = Field(0.1, ge=0, description=ALPHA)


class GatedFusionConfig(FusionConfig):
    """The released code's rule."""

    rule: Literal["gated"] = Field(
        "gated", description="no alpha, but a crop counts only where it adds at least `gate` (released code)"
    )
    gate: Fraction = Field(0.01, description="least gain in probability")


class MeanFusionConfig(FusionConfig):
    """A plain mean."""

    rule: Literal["mean"] = Field("mean", description="the mean probability of all views")


class CdulFusionConfig(FusionConfig):
    """CDUL's aggregation (Abdelfattah et al., ICCV 2023)."""

    rule: Literal["cdul"] = Field(
        "cdul", description="CDUL's aggregation of whole image and crops (Abdelfattah et al., ICCV 2023)"
    )
    zeta: Fraction = Field(
        0.5, description="the crops' greatest probability counts where it is at least this, else their least"
    )


class SoftFusionConfig(FusionConfig):
    """A soft maximum (not the paper's)."""

    rule: Literal["soft"] = Field("soft", description="a soft, anchored maximum of softened logits (not the paper's)")
    alpha: float = Field(0.1, ge=0, description=ALPHA)
    soften: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        0.5,
        description="factor of the teacher's logit scale before the softmax, or of a sigmoid's logits; auto "
        "(softmax only): the factor at which the mean top-1 probability of whole images is 0.6",
    )
    tau: float = Field(0.25, gt=0, description="temperature of the soft maximum; near 0 it is the plain maximum")
    anchor: Fraction = Field(0.1, description="weight of the whole image's own logits")


class StandardFusionConfig(FusionConfig):
    """Standardized views (not the paper's)."""

    rule: Literal["standard"] = Field(
        "standard",
        description="each view's similarities standardized over the classes (at least three), whole image and best "
        "crop together (not the paper's)",
    )
    tau: float | None = Field(
        None,
        gt=0,
        description="null adds the whole image and the best crop; a number takes the soft maximum of all views at this "
        "temperature",
    )


Fuse = Annotated[
    MaxFusionConfig | GatedFusionConfig | MeanFusionConfig | CdulFusionConfig | SoftFusionConfig | StandardFusionConfig,
    OneOf("rule"),
]
"""The settings of a fusion rule, by `fuse.rule`."""

parse_fuse = TypeAdapter[Fuse](Fuse).validate_python
"""Return the settings of a fusion rule from a mapping."""


class CorrectionConfig(Section):
    """What all label corrections share."""

    rule: str


class LiftingConfig(CorrectionConfig):
    """Corrections that lift the most probable classes of each image."""

    beta: Size = Field(1, description="number of classes per image that are lifted")


class SqrtCorrectionConfig(LiftingConfig):
    """The paper's order-persistent correction (Eq. 9)."""

    rule: Literal["sqrt"] = Field("sqrt", description="p becomes its square root (the paper's)")


class LinearCorrectionConfig(LiftingConfig):
    """The linear correction (Eq. 22)."""

    rule: Literal["linear"] = Field("linear", description="p becomes a + (1 - a) p")
    linear_alpha: Fraction = Field(0.1, description="a")


class HardCorrectionConfig(CorrectionConfig):
    """Hard labels for the most and the least probable class of each image (Eq. 21)."""

    rule: Literal["hard"] = Field("hard", description="the largest p becomes 0.95, the smallest 0.05")


class NoCorrectionConfig(CorrectionConfig):
    """Labels as they are."""

    rule: Literal["identity"] = Field("identity", description="no correction")


Correct = Annotated[
    SqrtCorrectionConfig | LinearCorrectionConfig | HardCorrectionConfig | NoCorrectionConfig, OneOf("rule")
]
"""The settings of a label correction, by `correct.rule`."""

parse_correct = TypeAdapter[Correct](Correct).validate_python
"""Return the settings of a label correction from a mapping."""


class TargetsConfig(Section):
    """Total mass of the labels that training starts from (not the paper's)."""

    labels_per_image: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="mean number of labels per image in the training targets; auto estimates it without labels; "
        "null leaves the labels unchanged",
    )
    sharpen: float = Field(
        1.0, gt=0, description="factor on the targets' logits (an inverse temperature); values above 1 sharpen them"
    )


class SelectConfig(Section):
    """Salient images to paste (Eq. 10)."""

    labels: Literal["zero_shot", "pseudo"] = Field(
        "zero_shot", description="labels from which salience is computed; pseudo is the released code's"
    )
    top_k: Size | Literal["auto"] = Field(
        200,
        description="k, number of most salient training images per class; auto: 1.3 N / C, of N training images and "
        "C classes, "
        "up to 1,000 images, falling to the paper's 0.7 N / C at 5,717",
    )


class SewConfig(Section):
    """Pasting salient images onto others (Eq. 11-13, Algorithm 1)."""

    kind: Literal["overlays"] = Field("overlays", description="pastes salient images onto the training images")
    p: float = Field(0.6, ge=0, lt=1, description="probability of adding another overlay")
    q: float = Field(0.6, gt=0, le=1, description="total size of all overlays relative to the image")
    ratio: Literal["area", "side"] = Field(
        "area", description="what q measures: area (paper's text) or side length (released code)"
    )
    max_overlays: Size = Field(2, description="L, maximum number of overlays per image")
    at_least_one: bool = Field(
        False, description="always paste at least one overlay (released code); the paper may paste none"
    )


class NoSewConfig(Section):
    """No pasting."""

    kind: Literal["none"] = Field("none", description="trains on unmodified images")


Sew = Annotated[SewConfig | NoSewConfig, OneOf("kind")]
"""The settings of sewing, by `sew.kind`."""

parse_sew = TypeAdapter[Sew](Sew).validate_python
"""Return the settings of sewing from a mapping."""

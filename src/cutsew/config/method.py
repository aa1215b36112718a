"""Settings of the method, and the presets that `method` names.

- Settings of the method: cutting (paper, Section 3.2) and sewing (Section 3.3).
- `method`: settings that go together, each settable alone; what the user sets himself stays as he set it.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from cutsew.config.base import Fraction, OneOf, Section, Size

Area = Annotated[float, Field(gt=0, le=1)]

STRIDE = 32
"""Pixels of a cell in the last grid of the convolutional towers that windows are for."""


class TilesConfig(Section):
    """One level of tiles."""

    grid: Size = Field(3, description="n of n x n tiles")
    share: Area = Field(0.4, description="share of both sides that a tile covers; 1 / n and less do not overlap")
    side: Size | None = Field(
        None,
        description="side in pixels at which the teacher sees a tile, a multiple of its patch: less work per tile, and "
        "its position embeddings are resized to the smaller grid; null: the teacher's own image size",
    )


def not_whole_cells(side: int, cell: int, model: str) -> str | None:
    """Say in one line that tiles of a side in pixels are not made of whole cells of a tower; None where they are."""
    if side % cell == 0:
        return None
    lower = side // cell * cell
    fitting = f"{lower} or {lower + cell}" if lower else f"{cell}"
    return f"cut.tiles: side {side} is not a multiple of the {cell} pixels of a cell of {model}'s grid; set {fitting}"


class WindowsConfig(Section):
    """Windows of the last grid of a convolutional teacher, which looks once at a larger image."""

    scale: float = Field(2.0, ge=1, description="side of the tower's input, relative to its image_size")
    share: Area = Field(0.33, description="fraction of each side of the grid that a window covers")
    per_side: Size = Field(6, description="n of n x n windows, spread evenly over the grid")

    def cells(self, image_size: int) -> tuple[int, int]:
        """Return the side of the grid and that of a window, in cells, of a tower with views of `image_size` pixels."""
        grid = max(1, round(self.scale * image_size / STRIDE))
        return grid, max(1, round(self.share * grid))

    def lacks_places(self, image_size: int) -> str | None:
        """Say in one line why the grid has no room for all windows at different places; None where it has."""
        grid, size = self.cells(image_size)
        places = max(0, grid - size + 1)
        if places >= self.per_side:
            return None
        return (
            f"cut.windows.per_side: {self.per_side} windows of {size} cells have only {places} places on a grid of "
            f"{grid}, at views of {image_size} pixels; lower it, raise cut.windows.scale, or set cut.layout: tiles"
        )


class CuttingConfig(Section):
    """What all layouts of the regions have in common (Eq. 5)."""

    layout: str

    @property
    def num_passes(self) -> int:
        """M, the number of regions."""
        raise ValueError(f"cut.layout is still {self.layout}")  # `Plan` resolves it by the teacher

    @property
    def block_size(self) -> int:
        """Passes in one job and one Zarr chunk."""
        raise NotImplementedError

    def looks(self, image_size: int) -> list[int]:
        """Return the side in pixels of each view that the teacher is given of one image, the whole image first.

        Args:
            image_size: side of the teacher's own views, in pixels.

        """
        runs = self.by_side(range(self.num_passes), image_size)
        return [image_size, *(side for run, side in runs for _ in run)]

    def by_side(self, passes: range, image_size: int) -> list[tuple[range, int]]:
        """Split passes into runs of crops that the teacher sees at one side, for layouts that cut crops from images.

        Args:
            passes: consecutive ones.
            image_size: side of the teacher's own views, in pixels.

        Returns:
            Passes and side in pixels of each run, in order.

        """
        return [(passes, image_size)]

    def placement(self) -> dict[str, Any]:
        """Return what `method.crops.crop_boxes` takes as keyword arguments."""
        raise NotImplementedError


class CropsPerJobConfig(CuttingConfig):
    """Layouts that cut crops from images, a block of them in each job."""

    passes_per_job: Size = Field(10, description="passes in one encoding job and one Zarr chunk")

    @property
    def block_size(self) -> int:
        """Passes in one job and one Zarr chunk."""
        return self.passes_per_job


class RandomCropsConfig(CropsPerJobConfig):
    """Crops of random shape and place: the paper's, or spread evenly."""

    layout: Literal["random", "spread"] = Field(
        "random",
        description="random: size, shape and place are drawn independently (the paper's); spread: low-discrepancy "
        "sequences with centers over the whole image, so that borders and corners are covered as often as the middle",
    )
    passes: int = Field(20, ge=0, description="M, crops per image")
    area: tuple[Area, Area] = Field(
        (0.1, 0.2), description="rho, fraction of the image's area that a crop covers: min, max"
    )
    aspect: tuple[float, float] = Field((3 / 4, 4 / 3), description="aspect ratio (width / height) of a crop: min, max")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    seed: int = Field(9, description="seed of the crops")

    @model_validator(mode="after")
    def ranges_ascend(self) -> Self:
        """Refuse a range that does not run from its smaller to its larger end."""
        for name, (low, high) in (("area", self.area), ("aspect", self.aspect)):
            if low > high or low <= 0:
                raise ValueError(f"{name} must be two positive numbers, smaller first")
        return self

    @property
    def num_passes(self) -> int:
        """M, the number of crops."""
        return self.passes

    def placement(self) -> dict[str, Any]:
        """Return what `method.crops.crop_boxes` takes as keyword arguments."""
        return self.model_dump(include={"layout", "seed", "area", "aspect", "flip"})


class TileGridConfig(CropsPerJobConfig):
    """Fixed grids of tiles."""

    layout: Literal["tiles"] = Field("tiles", description="fixed grids, which need no seed")
    tiles: list[TilesConfig] = Field(
        [TilesConfig(grid=3, share=0.4)], min_length=1, description="levels of the grid, e.g. 2 x 2 and 3 x 3"
    )

    @property
    def num_passes(self) -> int:
        """M, the number of tiles of all levels."""
        return sum(level.grid**2 for level in self.tiles)

    def by_side(self, passes: range, image_size: int) -> list[tuple[range, int]]:
        """Split passes into runs of tiles that the teacher sees at one side; each level may have a side of its own."""
        sides = [level.side or image_size for level in self.tiles for _ in range(level.grid**2)]
        runs, start = [], passes.start
        for side, run in groupby(sides[passes.start : passes.stop]):
            end = start + len(list(run))
            runs.append((range(start, end), side))
            start = end
        return runs

    def placement(self) -> dict[str, Any]:
        """Return what `method.crops.crop_boxes` takes as keyword arguments."""
        return {"layout": self.layout, "tiles": [(level.grid, level.share) for level in self.tiles]}


class WindowGridConfig(CuttingConfig):
    """Windows of the teacher's last grid; all of them come from one pass of the tower."""

    layout: Literal["windows"] = Field(
        "windows",
        description="one look at a larger image, regions of whose last grid are pooled, for convolutional teachers",
    )
    windows: WindowsConfig = Field(default_factory=WindowsConfig, description="size and number of the windows")

    @property
    def num_passes(self) -> int:
        """M, the number of windows."""
        return self.windows.per_side**2

    @property
    def block_size(self) -> int:
        """All passes: one job computes them."""
        return self.num_passes

    def looks(self, image_size: int) -> list[int]:
        """Return the sides of the two views: the image at the teacher's own side, and the larger one."""
        return [image_size, self.windows.cells(image_size)[0] * STRIDE]


class AutoLayoutConfig(CropsPerJobConfig):
    """Windows or tiles, whichever suits the teacher."""

    layout: Literal["auto"] = Field(
        "auto",
        description="windows where the teacher's tower is known to be convolutional and its grid has room for them, "
        "else tiles (always for hf-hub: models, whose tower is not known in advance): for a vision transformer, unless "
        "tiles are set, 3 x 3 that do not overlap, each at 0.88 of the side of its grid",
    )
    tiles: list[TilesConfig] | None = Field(
        None, min_length=1, description="levels of the tiles; null: what suits the tower"
    )
    windows: WindowsConfig = Field(default_factory=WindowsConfig, description="size and number of the windows")


Cut = Annotated[RandomCropsConfig | TileGridConfig | WindowGridConfig | AutoLayoutConfig, OneOf("layout")]
"""The regions that the teacher is asked about, by `cut.layout`."""

parse_cut = TypeAdapter[Cut](Cut).validate_python
"""Return the settings of a layout from a mapping."""

PAPER = RandomCropsConfig()
"""The paper's cutting."""


def teacher_cost(looks: Sequence[int], image_size: int) -> float:
    """Return the teacher's work for one image, in views of `image_size` pixels a side.

    Views count by their pixels. That is exact for convolutional towers but for the rounding of their grids; the
    attention of a transformer grows faster.

    Args:
        looks: side of each view, in pixels.
        image_size: side of the teacher's own views, in pixels.

    """
    return sum((side / image_size) ** 2 for side in looks)


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


class SoftmaxScoringConfig(ScoringConfig):
    """The paper's scores (Eq. 3-4)."""

    rule: Literal["softmax"] = Field(
        "softmax", description="Eq. 3-4 on the whole image and crops, which are then fused"
    )


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

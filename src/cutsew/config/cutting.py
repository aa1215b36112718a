"""Settings of the regions that the teacher scores (paper, Section 3.2), one model per layout."""

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
    whole: Literal["pass", "grid"] = Field(
        "pass",
        description="what the whole image is embedded from. pass: a view at the teacher's own side, as in all layouts; "
        "grid: all cells of the larger view's grid, which saves that view, one of five at scale 2",
    )

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

    @property
    def blocks(self) -> int:
        """Jobs of each shard: one at least, since the first one embeds the whole images too."""
        return max(1, -(-self.num_passes // self.block_size))

    def passes_of(self, block: int) -> range:
        """Return the passes of a block; the last block may be smaller than the others."""
        return range(block * self.block_size, min(self.num_passes, (block + 1) * self.block_size))

    def view_sides(self, image_size: int) -> list[int]:
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

    def view_sides(self, image_size: int) -> list[int]:
        """Return the sides of the view of the whole image, unless the grid takes its place, and of the larger view."""
        whole = [image_size] if self.windows.whole == "pass" else []
        return [*whole, self.windows.cells(image_size)[0] * STRIDE]


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
"""The regions that the teacher scores, by `cut.layout`."""


parse_cut = TypeAdapter[Cut](Cut).validate_python
"""Return the settings of a layout from a mapping."""

PAPER = RandomCropsConfig()
"""The paper's cutting."""


def teacher_cost(view_sides: Sequence[int], image_size: int) -> float:
    """Return the teacher's work for one image, in views of `image_size` pixels a side.

    Views count by their pixels. That is exact for convolutional towers but for the rounding of their grids; the
    attention of a transformer grows faster.

    Args:
        view_sides: side of each view, in pixels.
        image_size: side of the teacher's own views, in pixels.

    """
    return sum((side / image_size) ** 2 for side in view_sides)

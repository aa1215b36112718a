"""What settings stand for once the teacher and the other runs are known.

The layout of `cut.layout: auto`, crops that nothing reads, `fuse.passes` that is M, and the weights of the tiny CLIP
that the workflow retrains.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cutsew.config import Config
from cutsew.config.cutting import (
    CropsPerJobConfig,
    Cut,
    RandomCropsConfig,
    TileGridConfig,
    TilesConfig,
    WindowGridConfig,
)
from cutsew.config.loading import DEFAULT
from cutsew.config.named_models import HUB
from cutsew.config.schema import more_passes_than_cut
from cutsew.errors import UserError
from cutsew.models.model_tables import model_config
from cutsew.pipeline.network_work import teacher_side

SHIPPED = "demo"
"""What `pretrained` says for the tiny CLIP that the package carries."""

REBUILT = "cutsew-tiny.safetensors"
"""File of the tiny CLIP that the workflow retrains, in the base run's folder."""

CONVOLUTIONAL = ("convnext", "efficientnet")
"""Beginnings of timm's names of towers that are convolutional throughout and pool by the mean."""

SMALL = 0.88
"""Side of a tile against that of a vision transformer's own grid where the layout is automatic: nine such tiles that do
not overlap, and the whole image, take about 8 views' work, and made better labels than 20 random crops."""


def resolve(runs: Mapping[str, Config], results: Path) -> dict[str, Config]:
    """Return the settings of all runs with what is automatic in them resolved.

    Args:
        runs: settings by name, as loaded.
        results: the folder of all datasets' results.

    Raises:
        UserError: `fuse.passes` is more than the resolved layout has.

    """
    resolved = {name: _with_layout(_with_rebuilt_weights(run, results)) for name, run in runs.items()}
    resolved = {name: _without_idle_crops(run, resolved.values()) for name, run in resolved.items()}
    return {name: _with_all_passes(run) for name, run in resolved.items()}


def _without_idle_crops(config: Config, runs: Iterable[Config]) -> Config:
    """Ask for no crops where none is fused, unless another run makes the same ones anyway: then both share them."""
    if config.score.rule != "tagclip":
        return config
    for other in runs:
        same = (other.dataset, other.teacher, other.cut) == (config.dataset, config.teacher, config.cut)
        if same and other.score.rule != "tagclip":
            return config
    per_job = {"passes_per_job": config.cut.passes_per_job} if isinstance(config.cut, CropsPerJobConfig) else {}
    cut = config.cut if isinstance(config.cut, RandomCropsConfig) else RandomCropsConfig(**per_job)
    none = cut.model_copy(update={"layout": "random", "passes": 0})
    return config.model_copy(update={"cut": none, "fuse": config.fuse.model_copy(update={"passes": None})})


def _with_all_passes(config: Config) -> Config:
    """Say `fuse.passes: null` where it is M: both fuse all crops."""
    if config.fuse.passes is None or config.teacher.kind == "scores" or config.fuse.passes != config.cut.num_passes:
        return config
    return config.model_copy(update={"fuse": config.fuse.model_copy(update={"passes": None})})


def _with_layout(config: Config) -> Config:
    """Resolve `cut.layout: auto`: windows where the teacher's tower has room for them, else tiles.

    A vision transformer is given small tiles, unless tiles are set.

    What the hub's cache says of a model does not count: it comes with the first job, and the layout would change.
    """
    cut = config.cut
    if cut.layout != "auto":
        return config
    if config.teacher.kind == "open_clip" and config.teacher.open_clip.model.startswith(HUB):
        convolutional, patch = False, None
    elif config.teacher.kind == "open_clip":
        vision = model_config(config.teacher.open_clip.model).get("vision_cfg") or {}
        timm = str(vision.get("timm_model_name", "")).removeprefix("tf_")
        convolutional = isinstance(vision.get("layers"), list) or timm.startswith(CONVOLUTIONAL)
        patch = patch_of(vision)
    else:
        convolutional, patch = config.teacher.kind == "conse", None
    side = teacher_side(config)
    if convolutional and cut.windows.lacks_places(side) is None:
        return _laid_out(config, WindowGridConfig(windows=cut.windows))
    tiles = cut.tiles or TileGridConfig().tiles
    if patch is not None and cut.tiles is None:
        grid = side // patch
        small = max(1, round(SMALL * grid))
        tiles = [TilesConfig(grid=3, share=1 / 3, side=None if small >= grid else small * patch)]
    return _laid_out(config, TileGridConfig(tiles=tiles, passes_per_job=cut.passes_per_job))


def _laid_out(config: Config, cut: Cut) -> Config:
    """Set a layout instead of `auto`.

    Raises:
        UserError: `fuse.passes` is more than it has.

    """
    if config.teacher.kind != "scores" and (excess := more_passes_than_cut(config.fuse, cut)):
        raise UserError(excess)
    return config.model_copy(update={"cut": cut})


def patch_of(vision: Mapping[str, Any]) -> int | None:
    """Return the pixels of a patch's side of a vision transformer that open_clip describes; None for other towers."""
    timm = re.match(r"vit_.*_patch(\d+)_", str(vision.get("timm_model_name", "")))
    if timm is not None:
        return int(timm[1])
    patch = vision.get("patch_size")
    plain = "timm_model_name" not in vision and isinstance(vision.get("layers"), int)
    return patch if plain and isinstance(patch, int) else None


def _with_rebuilt_weights(config: Config, results: Path) -> Config:
    """Point teacher and student at the tiny CLIP that the workflow trains, if it is to be retrained."""
    if not config.dataset.rebuilds_teacher:
        return config
    rebuilt = str(results / config.dataset.name / DEFAULT / REBUILT)
    changed = {}
    for section in ("teacher", "student"):
        settings = getattr(config, section)
        if settings.kind == "open_clip" and settings.open_clip.pretrained == SHIPPED:
            model = settings.open_clip.model_copy(update={"pretrained": rebuilt})
            changed[section] = settings.model_copy(update={"open_clip": model})
    return config.model_copy(update=changed)

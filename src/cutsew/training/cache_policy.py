"""Whether a training's features are kept on disk, where, and all that they depend on."""

import hashlib
import json
import logging
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from cutsew.config.method import Sew
from cutsew.config.networks import Train
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.training.feature_cache import FeatureCache, Sizes
from cutsew.training.sewing_plan import Album

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

log = logging.getLogger(__name__)
GB = 10**9
AUTO_GB = 20
"""Most that `auto` keeps of a dataset's features; half of what is free on the disk where that is less."""
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")
"""What computes the pixels and the features: another version may round otherwise."""


class Keeping(NamedTuple):
    """Where features are kept: results/<dataset>/features, and how much may lie there: auto, off or a number of GB."""

    folder: Path
    limit: str


def open_cache(
    keeping: Keeping | None,
    backbone: "Backbone",
    album: Album,
    sew: Sew,
    train: Train,
    *,
    plain: bool,
    device: str,
    processes: int,
    workers: int,
) -> FeatureCache | None:
    """Open the cache of a training's features; None where none are kept.

    Args:
        keeping: where, and how much; None keeps nothing.
        backbone: what computes them.
        album: the photos.
        sew: how they are sewn.
        train: how it is trained; seed, epochs and whether there is a strong view are what counts.
        plain: whether the features of photos as they are are computed once.
        device: cpu or cuda.
        processes: that train together.
        workers: threads that read ahead.

    Raises:
        UserError: the limit is neither auto nor off nor a number.

    """
    if keeping is None or keeping.limit == "off":
        return None
    cell = (backbone.width, *backbone.grid)
    sizes = Sizes(train.num_epochs, len(album.paths), cell, train.strong_weight > 0, plain)
    content = _made_of(backbone, album, sew, train, sizes, device)
    if device != "cpu":  # there the last bits of a photo's features depend on the photos beside it
        content |= {"batch_size": train.batch_size, "processes": processes}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    refused = _too_much(keeping, key, sizes.bytes(_sewn_share(sew)))
    if refused is not None:
        log.info("features are not kept: %s; cutsew gc lists what no run uses", refused)
        return None
    return FeatureCache(keeping.folder / f"{key}.zarr", content, sizes, workers)


def _made_of(backbone: "Backbone", album: Album, sew: Sew, train: Train, sizes: Sizes, device: str) -> dict[str, Any]:
    """Gather what the features depend on, but for what comes and goes with a GPU."""
    photos = json.dumps([album.digests, album.sizes.tolist(), album.pool.tolist()])
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "version": STAGES["train"].version,
        "photos": hashlib.sha256(photos.encode()).hexdigest(),
        "sew": sew.model_dump(mode="json"),
        "seed": train.seed,
        "strong": sizes.strong,
        "plain": sizes.plain,
        "backbone": {**backbone.describe(), "image_size": backbone.image_size, "grid": list(backbone.grid)},
        "preprocessing": backbone.preprocessing.describe(),
        "device": gpu or f"{device} {torch.backends.cpu.get_cpu_capability()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _sewn_share(sew: Sew) -> float:
    """Share of the photos that something is pasted onto."""
    return (1.0 if sew.at_least_one else sew.p) if sew.enabled else 0.0


def _too_much(keeping: Keeping, key: str, needed: float) -> str | None:
    """Say why features would not fit into what the limit allows; None where they do."""
    kept = {path.name: _size(path) for path in keeping.folder.glob("*.zarr")} if keeping.folder.is_dir() else {}
    own = kept.pop(f"{key}.zarr", 0)
    others = sum(kept.values())
    limit = AUTO_GB * GB if keeping.limit == "auto" else _number(keeping.limit) * GB
    if needed + others > limit:
        named = f"the {limit / GB:g} GB of compute.cache_features"
        return f"up to {needed / GB:.1f} GB, and {others / GB:.1f} GB of others, are more than {named}"
    free = _free(keeping.folder)
    if keeping.limit == "auto" and needed - own > free / 2:
        return f"up to {needed / GB:.1f} GB are more than half of the {free / GB:.1f} GB that are free on the disk"
    return None


def _number(limit: str) -> float:
    try:
        return float(limit)
    except ValueError:
        raise UserError(f"--cache-features: {limit}: neither auto nor off nor a number of GB; give one") from None


def _free(folder: Path) -> int:
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
    return shutil.disk_usage(there).free


def _size(folder: Path) -> int:
    """Sum the sizes of the files in a folder; those that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Whether and where the features of a training are cached on disk, and what they depend on."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cutsew.config.method import Sew
from cutsew.errors import UserError
from cutsew.pipeline.graph import STAGES
from cutsew.runtime.device import numeric_environment
from cutsew.training.feature_cache import FeatureCache, Sizes

if TYPE_CHECKING:
    from cutsew.training.computed_features import ComputedFeatures

log = logging.getLogger(__name__)
GB = 10**9
AUTO_GB = 20
"""Most that `auto` keeps of a dataset's features; half of what is free on the disk where that is less."""


class CachePolicy(NamedTuple):
    """Where features are cached, results/<dataset>/features, and how much: `auto`, `off` or a number of GB."""

    folder: Path
    limit: str


def open_feature_cache(policy: CachePolicy | None, computed: "ComputedFeatures", processes: int) -> FeatureCache | None:
    """Open the cache of a training's features; None where they are not cached.

    Args:
        policy: where, and how much; None caches nothing.
        computed: what computes them.
        processes: that train together.

    Raises:
        UserError: the limit is neither auto nor off nor a number.

    """
    if policy is None or policy.limit == "off":
        return None
    dataset, sampler = computed.dataset, computed.sampler
    cell = (computed.backbone.width, *computed.backbone.grid)
    sizes = Sizes(sampler.num_epochs, sampler.num_images, cell, dataset.strong, dataset.skip_plain)
    content = _cache_key_content(computed, sizes)
    if computed.device != "cpu":  # there the last bits of an image's features depend on the images next to it
        content |= {"batch_size": sampler.batch_size, "processes": processes}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    refused = _too_much(policy, key, sizes.bytes(_sewn_share(dataset.sew)))
    if refused is not None:
        log.info("features are not cached: %s; cutsew gc lists what no run uses", refused)
        return None
    return FeatureCache(policy.folder / f"{key}.zarr", content, sizes, computed.workers)


def _cache_key_content(computed: "ComputedFeatures", sizes: Sizes) -> dict[str, Any]:
    """Collect what the features depend on, apart from what matters on a GPU only."""
    backbone, dataset = computed.backbone, computed.dataset
    made_of = dataset.images
    images = json.dumps([list(made_of.digests), made_of.sizes.tolist(), made_of.paste_pool.tolist()])
    return {
        "version": STAGES["train"].version,
        "images": hashlib.sha256(images.encode()).hexdigest(),
        "sew": dataset.sew.model_dump(mode="json"),
        "seed": computed.sampler.seed,
        "strong": sizes.strong,
        "plain": sizes.plain,
        "backbone": {**backbone.describe(), "image_size": backbone.image_size, "grid": list(backbone.grid)},
        "preprocessing": backbone.preprocessing.describe(),
        **numeric_environment(computed.device),
    }


def _sewn_share(sew: Sew) -> float:
    """Share of the images that something is pasted onto."""
    return 0.0 if sew.kind == "none" else 1.0 if sew.at_least_one else sew.p


def _too_much(policy: CachePolicy, key: str, needed: float) -> str | None:
    """Say why features would not fit into what the limit allows; None where they do."""
    kept = {path.name: _size(path) for path in policy.folder.glob("*.zarr")} if policy.folder.is_dir() else {}
    local_values = kept.pop(f"{key}.zarr", 0)
    others = sum(kept.values())
    limit = AUTO_GB * GB if policy.limit == "auto" else _number(policy.limit) * GB
    if needed + others > limit:
        named = f"the {limit / GB:g} GB of compute.cache_features"
        return f"up to {needed / GB:.1f} GB, and {others / GB:.1f} GB of others, are more than {named}"
    free = _free(policy.folder)
    if policy.limit == "auto" and needed - local_values > free / 2:
        return f"up to {needed / GB:.1f} GB are more than half of the {free / GB:.1f} GB that are free on the disk"
    return None


def _number(limit: str) -> float:
    try:
        return float(limit)
    except ValueError:
        raise UserError(f"--cache-features: {limit}: not auto, off or a number of GB; give one") from None


def _free(folder: Path) -> int:
    available = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
    return shutil.disk_usage(available).free


def _size(folder: Path) -> int:
    """Sum the sizes of the files in a folder; those that vanish in the process count as empty."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total

"""What open_clip and timm list about their models, read without building one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from cutsew.config.named_models import HUB_WEIGHTS, cached
from cutsew.models.activation import described

IMAGES = ("mean", "std", "interpolation")


@cache
def open_clip_tags(model: str) -> dict[str, dict[str, Any]]:
    """Return what open_clip's tags say about each weights of a model, by tag; torch is not imported."""
    tables = _open_clip_tables()
    tags = tables.list_pretrained_tags_by_model(model)
    says: dict[str, dict[str, Any]] = {}
    for tag in tags:
        entry = tables.get_pretrained_cfg(model, tag)
        says[tag] = {name: entry[name] for name in IMAGES if entry.get(name) is not None}
        says[tag]["quick_gelu"] = bool(entry.get("quick_gelu", False))
    return says


def is_at_hand(model: str, tag: str) -> bool:
    """Check whether a tag's weights need no hub: they are in its cache, come with this package, or from elsewhere."""
    entry = _open_clip_tables().get_pretrained_cfg(model, tag)
    repository, _, name = entry.get("hf_hub", "").rpartition("/")
    names = [*([name, Path(name).with_suffix(".safetensors").name] if name else []), *HUB_WEIGHTS]
    return not repository or cached(repository, names) is not None


def timm_tags(model: str) -> dict[str, dict[str, Any]]:
    """Return what timm says about each weights of a model, by its name with the tag, the default one first."""
    from cutsew.runtime.lazy_imports import import_torchvision  # noqa: PLC0415 - only a timm student needs it, and torch with it

    import_torchvision()
    from timm.models import get_arch_pretrained_cfgs  # noqa: PLC0415

    arch, _, tag = model.partition(".")
    return {
        name: {key: getattr(entry, key) for key in IMAGES}
        for name, entry in get_arch_pretrained_cfgs(arch).items()
        if entry.has_weights and (not tag or name == model)
    }


def model_config(model: str) -> dict[str, Any]:
    """Return open_clip's description of a model: of one registered in this process too; empty where there is none."""
    loaded = sys.modules.get("open_clip")
    config = loaded.get_model_config(model) if loaded is not None and ":" not in model else None
    return dict(config or described(model) or {})


@cache
def _open_clip_tables() -> ModuleType:
    """Import open_clip's list of weights alone, under another name.

    The Snakefile needs the list, and every job parses the Snakefile: 8 ms of CPU time instead of 1.1 s, as neither
    open_clip nor torch is imported.
    """
    loaded = sys.modules.get("open_clip.pretrained")
    if loaded is not None:
        return loaded
    package = ModuleType("cutsew._open_clip")
    package.__path__ = _open_clip_folders()
    sys.modules[package.__name__] = package
    with suppress(ImportError), _hidden("safetensors"), _hidden("huggingface_hub"):
        return import_module(f"{package.__name__}.pretrained")
    return import_module("open_clip.pretrained")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make a package that others import only where it is installed look absent, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _open_clip_folders() -> list[str]:
    spec = find_spec("open_clip")
    return list(spec.submodule_search_locations or []) if spec is not None else []

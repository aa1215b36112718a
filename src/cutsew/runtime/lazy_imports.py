"""Importing large packages: optional ones, torchvision next to any build of torch, and without garbage collection."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from cutsew.errors import missing_package

_kept: list[Any] = []
"""Libraries of operators: torch forgets their operators once they are garbage-collected."""

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Import packages without garbage collection, then freeze their objects (`gc.freeze`): classes are there to stay.

    Buys 2 s of CPU time of the 6 s that a job with a network takes to start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def optional_package(name: str, extra: str, needed_by: str) -> ModuleType:
    """Import a package of one of cutsew's extras.

    Args:
        name: of the package.
        extra: that installs it.
        needed_by: what the message begins with, such as `teacher.kind: conse:`.

    Raises:
        UserError: it is not installed.

    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_package(needed_by, name, extra) from None


@gc_frozen()
def import_torchvision() -> ModuleType:
    """Import torchvision, also next to a torch build that its operators do not fit.

    PyPI's torchvision wheel wants the CUDA build of torch. With the CPU build its operators stay unregistered and the
    import fails on the first of them. Two empty declarations let it import; nothing here calls these operators.
    Call it before open_clip or timm, which import torchvision themselves.

    Returns:
        torchvision.

    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch  # noqa: PLC0415

    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    _kept.append(library)
    return importlib.import_module("torchvision")

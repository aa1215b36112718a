"""Mends for packages that do not import side by side, or not quickly."""

import importlib
import sys
from types import ModuleType
from typing import Any

from cutsew.quick_imports import compiler_when_called, uncollected

_kept: list[Any] = []
"""Libraries of operators: torch forgets their operators once they are garbage-collected."""

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> ModuleType:
    """Import torchvision and timm, also beside a torch build that torchvision's operators do not fit.

    PyPI's torchvision wheel wants the CUDA build of torch. Beside the CPU build its operators stay unregistered and the
    import fails on the first of them. Two empty declarations let it import; nothing here calls these operators.
    Call it before open_clip or timm, which import torchvision themselves. Torch's compiler, which both would import, is
    left to whoever calls it: a second of every job.

    Returns:
        torchvision.

    """
    with uncollected(), compiler_when_called():
        torchvision = _import_torchvision()
        importlib.import_module("timm")
    return torchvision


def _import_torchvision() -> ModuleType:
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

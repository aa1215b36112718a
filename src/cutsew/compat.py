"""Mends for packages that do not import side by side, or not quickly."""

import importlib
import sys
from types import ModuleType
from typing import Any

from cutsew.quick_imports import quickly

_kept: list[Any] = []
"""Libraries of operators: torch forgets their operators once they are garbage-collected."""

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> ModuleType:
    """Import torchvision, also beside a torch build that its operators do not fit.

    PyPI's torchvision wheel wants the CUDA build of torch. Beside the CPU build its operators stay unregistered and the
    import fails on the first of them. Two empty declarations let it import; nothing here calls these operators.
    Call it before open_clip or timm, which import torchvision themselves.

    Returns:
        torchvision.

    """
    with quickly():
        return _import_torchvision()


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

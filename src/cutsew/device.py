"""Choosing the device that torch computes on."""

import torch

from cutsew.errors import UserError
from cutsew.gpu import claim


def pick_device(wanted: str) -> str:
    """Turn `auto`, `cpu` or `cuda` into a device that is there, and make one GPU of several this process's own.

    Raises:
        UserError: cuda was asked for and there is none.

    """
    if wanted != "cpu":
        claim()
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda is not available here; set it to auto or cpu")
    return wanted

"""Choosing the device that torch computes on."""

import torch

from cutsew.errors import UserError


def pick_device(wanted: str) -> str:
    """Turn `auto`, `cpu` or `cuda` into a device that is there.

    Raises:
        UserError: cuda was asked for and there is none.

    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda is not available here; set it to auto or cpu")
    return wanted

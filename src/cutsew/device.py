"""Choosing the device that torch computes on."""

import logging

import torch

from cutsew.errors import UserError
from cutsew.gpu import allocated, claim, listed

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")


def pick_device(wanted: str) -> str:
    """Resolve `auto`, `cpu` or `cuda` to an available device, and reserve one of several GPUs for this process.

    `auto` takes the CPU only where there is no GPU: on a CPU, work that was planned for a GPU would run into its time
    limit, with the GPU idle.

    Returns:
        cpu or cuda.

    Raises:
        UserError: another name; cuda is not available; a GPU was allocated and torch cannot use it.

    """
    if wanted not in DEVICES:
        raise UserError(f"--device: {wanted} is none of {', '.join(DEVICES)}; CUDA_VISIBLE_DEVICES selects among GPUs")
    if wanted == "cpu":
        return "cpu"
    claim()
    if torch.cuda.is_available():
        return "cuda"
    gpus = ", ".join(allocated())
    if gpus and listed():
        raise UserError(
            f"compute.device: {wanted}: this process has GPU {gpus}, but torch {torch.__version__} cannot use it "
            f"({_reason()}); or set compute.device: cpu"
        )
    if wanted == "cuda":
        raise UserError("compute.device: cuda is not available here; set it to auto or cpu")
    if gpus:
        log.warning("compute.device: auto: GPU %s was allocated, but no NVIDIA driver is here; the CPU is used", gpus)
    return "cpu"


def device_facts(device: str) -> dict[str, str | None]:
    """Return what a record says about the device used: its kind and, for a GPU, its name and the versions of CUDA."""
    if device == "cpu":
        return {"device": device}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def _reason() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return "it is built without CUDA; install torch for CUDA"
    return "the driver may be too old for it; compare with nvidia-smi"

"""Where and how a model computes: the device, and a frozen encoder's number format and compilation."""

import logging
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor

from cutsew.config.base import Precision
from cutsew.errors import UserError
from cutsew.runtime.batching import halving
from cutsew.runtime.gpus import list_allocated_gpus, list_driver_gpus, reserve_gpu
from cutsew.runtime.machine import package_version

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")


def mps_available() -> bool:
    """Check whether torch can compute on an Apple GPU."""
    return torch.backends.mps.is_available()


def pick_device(requested: str) -> str:
    """Resolve a requested device to an available one, and reserve one of several NVIDIA GPUs for this process.

    `auto` takes the CPU only where there is no GPU: on a CPU, work that was planned for a GPU would run into its time
    limit, with the GPU idle. An Apple GPU is used only where `mps` is requested.

    Args:
        requested: one of `DEVICES`.

    Returns:
        cpu, cuda or mps.

    Raises:
        UserError: another name; cuda or mps is not available; a GPU was allocated and torch cannot use it.

    """
    if requested not in DEVICES:
        raise UserError(
            f"--device: {requested} is not one of {', '.join(DEVICES)}; CUDA_VISIBLE_DEVICES selects among GPUs"
        )
    if requested == "cpu":
        return "cpu"
    if requested == "mps":
        if not mps_available():
            raise UserError("compute.device: mps needs an Apple GPU and a torch built for it; set it to auto or cpu")
        return "mps"
    reserve_gpu()
    if torch.cuda.is_available():
        # The host only feeds the GPU, and torch's threads would take the cores of the workers that decode.
        torch.set_num_threads(1)
        return "cuda"
    gpus = ", ".join(list_allocated_gpus())
    if gpus and list_driver_gpus():
        raise UserError(
            f"compute.device: {requested}: this process has GPU {gpus}, but torch {torch.__version__} cannot use it "
            f"({_reason()}); or set compute.device: cpu"
        )
    if requested == "cuda":
        raise UserError("compute.device: cuda is not available here; set it to auto or cpu")
    if gpus:
        log.warning("compute.device: auto: GPU %s was allocated, but no NVIDIA driver is here; the CPU is used", gpus)
    return "cpu"


def device_facts(device: str) -> dict[str, str | None]:
    """Return what a record says about the device used: its kind and, for a GPU, its name and the versions of CUDA."""
    if device == "cpu":
        return {"device": device}
    if device == "mps":
        return {"device": device, "gpu": f"Apple {platform.machine()}"}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "openvino", "numpy", "pillow")
"""What computes pixels and features: another version may round otherwise."""


def numeric_environment(device: str) -> dict[str, Any]:
    """Return what the last bits of a network's output depend on besides the network: device and versions.

    Caches whose values must equal recomputed ones have it in their keys.
    """
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "device": gpu or f"{device} {torch.backends.cpu.get_cpu_capability()}",
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def _reason() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return "it is built without CUDA; install torch for CUDA"
    return "the driver may be too old for it; compare with nvidia-smi"


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of less than 32 bits, in which autocast computes; weights stay in float32, and so does what comes out."""


def with_precision(
    encoder: Callable[[Tensor], Tensor], precision: str, device: str, *, compiled: bool, setting: str
) -> Callable[[Tensor], Tensor]:
    """Make an encoder compute in a precision, and compile it if requested.

    On a GPU, float32 products of the encoder run on TF32 tensor cores with every precision but float32; what else the
    process computes, texts, class activation maps and the trained head, stays in full float32. A CPU has no such cores,
    so there tf32 is float32.

    Args:
        encoder: from (B, ...) to a tensor with B rows.
        precision: one of `Precision`.
        device: cpu, cuda or mps.
        compiled: pass it through torch.compile; the first call then takes a minute or so.
        setting: section that errors name, teacher or student.

    Returns:
        The encoder, whose results are float32.

    Raises:
        UserError: float16 on a CPU; float16 or bfloat16 on an Apple GPU; bfloat16 on a GPU that lacks it.

    """
    computing = autocast_factory(precision, device, setting)
    fast = _compiled(encoder) if compiled else encoder

    def run(images: Tensor) -> Tensor:
        with computing():
            return fast(images).float()

    return run


def _compiled(encoder: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile for the largest batch seen so far, to which others are filled up: torch compiles once per size."""
    fast, rows = torch.compile(encoder), 0

    def run(images: Tensor) -> Tensor:
        nonlocal rows
        count = len(images)
        rows = min(max(rows, count), halving.most or sys.maxsize)
        if count < rows:
            images = torch.cat([images, images.new_zeros(rows - count, *images.shape[1:])])
        result: Tensor = fast(images)
        return result[:count]

    return run


def autocast_factory(precision: str, device: str, setting: str) -> Callable[[], AbstractContextManager[object]]:
    """Return what opens the context in which an encoder computes; otherwise as `with_precision`."""
    if precision not in get_args(Precision):
        raise ValueError(f"no precision {precision}")
    if precision == "float16" and device == "cpu":
        raise UserError(f"{setting}.precision: float16 needs a GPU; set bfloat16 or float32, or compute.device: cuda")
    if precision in DTYPES and device == "mps":
        raise UserError(f"{setting}.precision: {precision} is not supported on an Apple GPU; set it to float32")
    if precision == "bfloat16" and device == "cpu" and not cpu_supports_bf16():
        log.warning(
            "%s.precision: this CPU lacks bfloat16 instructions, so float32 is faster; set tf32",
            setting,
        )
    if precision == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{setting}.precision: bfloat16 needs a GPU of the Ampere generation or newer, and this is a "
            f"{torch.cuda.get_device_name()}; set float16"
        )
    allow_tf32(False)

    @contextmanager
    def computing() -> Iterator[None]:
        # Threads compute at the same time on a CPU alone, which has no TF32.
        with (
            tensor_cores(precision != "float32") if device == "cuda" else nullcontext(),
            torch.autocast(device, DTYPES.get(precision), enabled=precision in DTYPES),
        ):
            yield

    return computing


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for float32 products and convolutions inside the block."""
    before = tf32_allowed()
    allow_tf32(allowed)
    try:
        yield
    finally:
        allow_tf32(*before)


def tf32_allowed() -> tuple[bool, bool]:
    """Return whether float32 products, and convolutions, may run on TF32 tensor cores.

    From torch 2.9 on, reading `allow_tf32` fails after anything in the process has set `fp32_precision`.
    """
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    if hasattr(products, "fp32_precision"):
        return products.fp32_precision == "tf32", convolutions.conv.fp32_precision == "tf32"
    return products.allow_tf32, convolutions.allow_tf32


def allow_tf32(products: bool, convolutions: bool | None = None) -> None:
    """Set for the whole process whether float32 products and convolutions may run on TF32 tensor cores.

    Args:
        products: whether matrix products may.
        convolutions: whether convolutions may; the same as products by default.

    """
    wanted = products, products if convolutions is None else convolutions
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    matmul.allow_tf32, cudnn.allow_tf32 = wanted  # these set `fp32_precision` too, and torch's compiler reads them
    if tf32_allowed() != wanted:  # something has set `fp32_precision` for all backends, which takes precedence
        matmul.fp32_precision, cudnn.conv.fp32_precision = ("tf32" if allowed else "ieee" for allowed in wanted)


def cpu_supports_bf16() -> bool:
    """Check whether the CPU multiplies bfloat16 natively; torch emulates it otherwise, nine times as slowly."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx10_1", "avx10_2", "bf16", "sve_bf16"))

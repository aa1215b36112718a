"""From 8-bit pixels to embeddings, by torch or OpenVINO.

- From 8-bit pixels to a model's input.
- What computes the embeddings of views: torch, or OpenVINO on a CPU.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cutsew.config.networks import EncodingTeacherConfig as Settings
from cutsew.errors import UserError, first_line
from cutsew.runtime import batching
from cutsew.runtime.device import with_precision
from cutsew.runtime.lazy_imports import optional_package


class Normalize(nn.Module):
    """Normalize images: (x / 255 - mean) / std per channel, laid out channels last, which convolutions like best.

    Args:
        mean: of the three channels, for pixels in [0, 1].
        std: of the three channels.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) uint8 into float32 of the same shape."""
        if images.is_contiguous(memory_format=torch.channels_last):
            return self._by_rows(images)
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _by_rows(self, images: Tensor) -> Tensor:
        """Do the same for a batch that is laid out channels last, a row at a time instead of a pixel at a time."""
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        mean, std = (value.reshape(channels).repeat(width) for value in (self.mean, self.std))
        normal = rows.float().sub_(mean).div_(std)
        return normal.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def image_encoder(encoder: nn.Module, image_size: int, settings: Settings, device: str) -> Callable[[Tensor], Tensor]:
    """Make a teacher's image encoder compute as the settings say.

    Args:
        encoder: from (B, 3, S, S) uint8 views to a tensor with B rows.
        image_size: S.
        settings: its runtime, precision and whether it is compiled.
        device: cpu, cuda or mps.

    Returns:
        The encoder, whose results are float32. OpenVINO's takes MICROBATCH_SIZE views at a time, as
        `run_batch_invariant` gives them.

    Raises:
        UserError: the device does not have the precision or the runtime, or OpenVINO is missing or cannot do it.

    """
    if settings.runtime == "torch":
        return with_precision(encoder, settings.precision, device, compiled=settings.compiled, setting="teacher")
    if device != "cpu":
        raise UserError("teacher.runtime: openvino computes on the CPU; set it to torch, or compute.device: cpu")
    if settings.precision == "float16":
        raise UserError("teacher.precision: float16 needs a GPU; set bfloat16 or float32 with runtime openvino")
    return _on_openvino(encoder, image_size, "bf16" if settings.precision == "bfloat16" else "f32")


def count_gflop(encoder: nn.Module, image_size: int, device: str) -> float:
    """Count the GFLOP of one view by running the encoder once in torch; a multiply-add counts as two.

    Attention runs as plain matrix products here, since fused kernels count as nothing.

    Args:
        encoder: from (B, 3, S, S) uint8 views on `device` to a tensor with B rows.
        image_size: S.
        device: cpu, cuda or mps.

    """
    if device == "cpu":
        batching.worker_pool()
    view = torch.zeros((1, 3, image_size, image_size), dtype=torch.uint8, device=device)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoder(view)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) / 1e9


def _on_openvino(encoder: nn.Module, image_size: int, precision: str) -> Callable[[Tensor], Tensor]:
    """Compile for OpenVINO: each group of views in one thread, independent of the rest of the batch.

    The model is traced by torch first: OpenVINO's own tracing takes ten seconds of an RN50, this takes one.
    """
    openvino = _openvino()
    views = torch.zeros((batching.MICROBATCH_SIZE, 3, image_size, image_size), dtype=torch.uint8)
    count = batching.num_workers()
    hints = {"INFERENCE_PRECISION_HINT": precision, "ENABLE_CPU_PINNING": False}
    hints |= {"NUM_STREAMS": count, "INFERENCE_NUM_THREADS": count}
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of what a trace cannot know
            traced = torch.jit.trace(encoder, views, check_trace=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, input=[(list(views.shape), openvino.Type.u8)])
        compiled = _core().compile_model(graph, "CPU", hints)
    except Exception as error:  # what it lacks for a model comes as any kind
        raise UserError(
            f"teacher.runtime: openvino cannot run this model ({first_line(error)}); set it to torch"
        ) from None
    per_thread = threading.local()

    def run(images: Tensor) -> Tensor:
        if not hasattr(per_thread, "request"):
            per_thread.request = compiled.create_infer_request()
        (output,) = per_thread.request.infer([images.contiguous().numpy()]).values()
        return torch.from_numpy(output.copy())

    return run


@cache
def _core() -> Any:  # noqa: ANN401 - an optional package
    """Keep one core for as long as the process lives.

    With its last core OpenVINO's CPU plugin unmaps the stack on which it had signals handled, but takes it back only
    from the thread that lets go of it; the next signal then ends the process.
    """
    return _openvino().Core()


def _openvino() -> ModuleType:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # disables openvino's telemetry
    return optional_package("openvino", "openvino", "teacher.runtime: openvino")

"""Running a model on batches: independent of the batch, in parts that fit, and its output checked.

- Retrying with smaller batches when the GPU runs out of memory.
- Running a model so that the output for an image does not depend on the rest of the batch.
- Preparing the next batch while the GPU computes.
- Stopping where a model answers with what is no number, before it spreads into labels.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cutsew.errors import UserError, out_of_gpu_memory

log = logging.getLogger(__name__)

Key = TypeVar("Key")


class OOMBatchSplitter:
    """Calls a model on batches that fit; what did not fit once is not tried again in this process."""

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Apply a model to a batch, in parts where the whole does not fit into memory.

        Args:
            function: from b rows to b rows, each from its own.
            images: B rows.

        Returns:
            B rows.

        Raises:
            UserError: not even one row fits.

        """
        rows: list[Tensor] = []
        start = 0
        while start < len(images) or not rows:
            part = images[start : start + (self.most or len(images))]
            try:
                rows.append(function(part))
            except RuntimeError as error:
                if not out_of_gpu_memory(error):
                    raise
            else:
                start += max(1, len(part))
                continue
            # Outside `except`: the traceback there still holds the failed call's tensors, so that nothing is freed.
            self._halve(len(part))
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _halve(self, size: int) -> None:
        if size <= 1:
            raise UserError(
                "compute.batch_size: the GPU's memory does not hold one view; use a GPU with more, a smaller model or "
                "a smaller image_size"
            )
        self.most = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
        log.warning("%d views do not fit into the GPU's memory; retrying with %d at a time", size, self.most)


MICROBATCH_SIZE = 4
"""Images in one call of the model on a CPU."""

halving = OOMBatchSplitter()


def run_batch_invariant(function: Callable[[Tensor], Tensor], images: Tensor, device: str | torch.device) -> Tensor:
    """Apply a model to a batch of images.

    On a CPU the last bits of a convolution or a product depend on how many images share a call and how many threads
    share its work. So the batch is cut into groups of MICROBATCH_SIZE images, the last one filled up with zeros,
    and each group is computed by one thread, as many groups at a time as torch has threads. The result for an image
    is then the same bit for bit whatever the batch and the number of threads. Small groups also stay in the
    processor's cache, which makes this the faster way for small models. On a GPU the whole batch is one call, or as
    much of it as fits.

    Args:
        function: from (b, ...) images on `device` to a tensor with b rows, each row from its own image.
        images: (B, ...).
        device: torch device.

    Returns:
        B rows, on `device`.

    """
    if torch.device(device).type != "cpu":
        with torch.no_grad():
            return halving(lambda part: function(part.to(device, non_blocking=True)), images)
    return torch.cat(
        list(worker_pool().map(lambda group: _compute(function, group), torch.split(images, MICROBATCH_SIZE)))
    )


def run_ahead(
    function: Callable[[Tensor], Tensor], batches: Iterable[tuple[Key, Tensor]], device: str
) -> Iterator[tuple[Key, Tensor]]:
    """Apply a model to one batch after another, as `run_each_ahead` does."""
    return run_each_ahead(((key, function, [batch]) for key, batch in batches), device)


def run_each_ahead(
    batches: Iterable[tuple[Key, Callable[[Tensor], Tensor], Sequence[Tensor]]], device: str
) -> Iterator[tuple[Key, Tensor]]:
    """Apply models to one batch after another; on a GPU, each is queued before the host waits for the one before it.

    While the GPU computes a batch, the host prepares the next one, and hands out the results of the previous one.

    Args:
        batches: each with a key of its own, its model, from (B, ...) to a tensor with B rows on `device`, and its rows
            on the CPU, in parts, at least one. A GPU puts the parts together itself, which would take the host
            longer than everything else that it does for a batch.
        device: cpu, cuda or mps; on an Apple GPU the host waits for each batch.

    Yields:
        The key and the result of each batch, in order, on the CPU.

    """
    if torch.device(device).type != "cuda":
        yield from ((key, function(join(parts, "cpu")).cpu()) for key, function, parts in batches)
        return
    queued: tuple[Key, Tensor, torch.cuda.Event] | None = None
    for key, function, parts in batches:
        result = function(join(parts, device)).to("cpu", non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        if queued is not None:
            queued[2].synchronize()
            yield queued[:2]
        queued = key, result, copied
    if queued is not None:
        queued[2].synchronize()
        yield queued[:2]


def join(parts: Sequence[Tensor], device: str) -> Tensor:
    """Put the parts of a batch together, from the CPU's memory; on a GPU without waiting for it.

    A copy from memory that is not pinned would wait for what the GPU has still to do.

    Args:
        parts: at least one, of at least one row.
        device: where; an Apple GPU is given the batch by the model.

    """
    if torch.device(device).type == "cuda":
        parts = [(part if part.is_pinned() else part.pin_memory()).to(device, non_blocking=True) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def map_images(
    function: Callable[[Tensor], Tensor], images: Sequence[Tensor], device: str | torch.device
) -> list[Tensor]:
    """Apply a model to images of different sizes, one per thread on a CPU, as in `run_batch_invariant`.

    Args:
        function: from one image, on `device`.
        images: one after another, any shapes.
        device: torch device.

    Returns:
        What it gives for each, on the CPU; the same bit for bit whatever the number of images and threads.

    """

    def alone(image: Tensor) -> Tensor:
        with torch.no_grad():
            return function(image.to(device, non_blocking=True)).cpu()

    if torch.device(device).type != "cpu":
        return [alone(image) for image in images]
    return list(worker_pool().map(alone, images))


@cache
def worker_pool() -> ThreadPoolExecutor:
    """Take over torch's threads, one group each; everything else in this process runs in one thread.

    The last bits of a sum would depend on how many threads share it. And OpenMP's threads, waiting for work beside
    these ones, take their cores: with both, putting sixteen small pictures into one tensor took 40 ms.
    """
    groups = num_workers()
    torch.set_num_threads(1)
    return ThreadPoolExecutor(groups, initializer=use_one_thread)


@cache
def num_workers() -> int:
    """How many groups are computed at a time: as many as torch had threads at first."""
    return torch.get_num_threads()


def use_one_thread() -> None:
    """Let torch compute in one thread whatever this thread calls."""
    torch.get_num_threads()  # torch sets up each new thread once, on first use: that must come before the next line
    torch.set_num_threads(1)


def _compute(function: Callable[[Tensor], Tensor], group: Tensor) -> Tensor:
    count = len(group)
    if count < MICROBATCH_SIZE:
        group = torch.cat([group, group.new_zeros(MICROBATCH_SIZE - count, *group.shape[1:])])
    with torch.no_grad():
        return function(group)[:count]


def require_finite(values: npt.NDArray[np.floating[Any]], names: Sequence[str], what: str) -> None:
    """Refuse NaN and infinities.

    Args:
        values: (n, ...) what a model said of n images or classes.
        names: n or more names, in the same order.
        what: the answer, such as "the teacher's embedding of view 3".

    Raises:
        UserError: a value is not finite; the first such image or class is named.

    """
    sound = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not sound.all():
        name = names[int(np.argmin(sound))]
        raise UserError(f"{name}: {what} is not finite; check the model's weights, or set precision: float32")

"""Running a model so that what comes out for an image does not depend on the images beside it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from cutsew.halving import Halving

GROUP = 4
"""Images in one call of the model on a CPU."""

halving = Halving()


def steadily(function: Callable[[Tensor], Tensor], images: Tensor, device: str | torch.device) -> Tensor:
    """Apply a model to a batch of images.

    On a CPU the last bits of a convolution or a product depend on how many images share a call and how many threads
    share its work. So the batch is cut into groups of GROUP images, the last one filled up with zeros, and each group
    is computed by one thread, as many groups at a time as torch has threads. The result for an image is then the same
    bit for bit whatever the batch and the number of threads. Small groups also stay in the processor's cache, which
    makes this the faster way for small models. On a GPU the whole batch is one call, or as much of it as fits.

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
    return torch.cat(list(threads().map(lambda group: _compute(function, group), torch.split(images, GROUP))))


def each_steadily(
    function: Callable[[Tensor], Tensor], images: Sequence[Tensor], device: str | torch.device
) -> list[Tensor]:
    """Apply a model to images of different sizes, each alone: on a CPU one thread for each, as in `steadily`.

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
    return list(threads().map(alone, images))


@cache
def threads() -> ThreadPoolExecutor:
    """Take over torch's threads: one group each; what this process computes beside them, it computes in one thread.

    The last bits of a sum would depend on how many threads share it. And OpenMP's threads, waiting for work beside
    these ones, take their cores: with both, putting sixteen small pictures into one tensor took 40 ms.
    """
    groups = count()
    torch.set_num_threads(1)
    return ThreadPoolExecutor(groups, initializer=use_one_thread)


@cache
def count() -> int:
    """How many groups are computed at a time: as many as torch had threads at first."""
    return torch.get_num_threads()


def use_one_thread() -> None:
    """Let torch compute in one thread whatever this thread calls."""
    torch.get_num_threads()  # torch sets up each new thread once, on first use: that must come before the next line
    torch.set_num_threads(1)


def _compute(function: Callable[[Tensor], Tensor], group: Tensor) -> Tensor:
    count = len(group)
    if count < GROUP:
        group = torch.cat([group, group.new_zeros(GROUP - count, *group.shape[1:])])
    with torch.no_grad():
        return function(group)[:count]

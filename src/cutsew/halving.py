"""Going on with smaller batches where the GPU's memory does not hold a whole one."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from cutsew.errors import UserError, out_of_gpu_memory

log = logging.getLogger(__name__)


class Halving:
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
        log.warning("%d views do not fit into the GPU's memory; retrying with %d at a time", size, self.most)

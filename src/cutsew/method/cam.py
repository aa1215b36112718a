"""Where in an image a model sees a class: class activation maps from gradients.

Grad-CAM: Selvaraju et al., ICCV 2017. HiResCAM: Draelos and Carin, arXiv 2011.08891.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh each channel by its mean gradient, sum the channels, and keep what speaks for the class.

    Args:
        features: (B, K, H, W) of a grid.
        gradients: of each image's score of its class with respect to its features, of the same shape.

    Returns:
        (B, H, W) in [0, 1]: the largest value of each map is 1, or all are 0 where nothing speaks for the class.

    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return to_unit((weights * features).sum(dim=1))


def hires_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh each channel at each place by its gradient there; otherwise as `grad_cam`.

    For a head that looks at places, as a decoder's attention does, and so has no one weight per channel.
    """
    return to_unit((gradients * features).sum(dim=1))


def to_unit(maps: Tensor) -> Tensor:
    """Set what is negative in (B, H, W) maps to 0 and scale each to the maximum 1, where it has a positive value."""
    positive = maps.clamp_min(0)
    peak = positive.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, positive / peak, 0.0)


class ActivationHook:
    """Takes what a layer gives while a model runs, and how much a score would change with it.

    What lies before the layer is computed without gradient, so only the model's end is kept in memory. One tap serves
    any number of threads that run the model at the same time.

    Args:
        layer: of the model, called once per run.
        entering: take what enters the layer, not what leaves it.

    """

    def __init__(self, layer: nn.Module, *, entering: bool = False) -> None:
        self._layer = layer
        self._entering = entering
        self._of_thread = threading.local()

    def __enter__(self) -> Self:
        """Listen at the layer."""
        hook = self._layer.register_forward_pre_hook if self._entering else self._layer.register_forward_hook
        self._hook = hook(self._before if self._entering else self._after)  # type: ignore[arg-type]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave the layer as it was."""
        self._hook.remove()

    def gradients(self, score: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Run the model.

        Args:
            score: runs it on B images and gives (B,) scores, each from its own image alone.

        Returns:
            The tensor at the layer, B rows, and the gradient of each image's score, of the same shape.

        """
        with torch.enable_grad():
            total = score().sum()
        taken: Tensor = self._of_thread.taken
        (gradient,) = torch.autograd.grad(total, [taken])
        return taken.detach(), gradient

    def _before(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._take(inputs[0]), *inputs[1:])

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._take(output)

    def _take(self, tensor: Tensor) -> Tensor:
        self._of_thread.taken = tensor.detach().requires_grad_()
        return self._of_thread.taken  # type: ignore[no-any-return]

"""Interactive cutting and sewing: losses, and the table of pseudo-labels (paper, Section 3.5).

- Label blending and the two losses of interactive cutting and sewing (paper, Eq. 13 and 17-20).
- The label table Z (the paper's estimator), of which the E-step updates a few rows a step (paper, Section 3.5).

A dense AdamW moves and decays every row of Z at every step: O(N C) work for a batch of a few rows. This one touches
the rows of the batch only and gives what the dense one would: a row that was left alone is brought up to date, in
closed form, when it is next read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Blend(NamedTuple):
    """Blended labels.

    Attributes:
        z: (B, C), the largest logit of each class over an image's sources.
        source: (B, C) int64 in [0, K), which source gave it.

    """

    z: Tensor
    source: Tensor


def blend(z: Tensor) -> Blend:
    """Take each class's largest logit over the background and the overlays of a sewn image (Eq. 13).

    The gradient of each class goes to exactly one source, the winner (Eq. 18-19). Where sources tie, the first one
    wins: the background before the overlays, overlays in the order in which they were pasted.

    Args:
        z: (B, K, C) float logits; source 0 is the background. An image with fewer sources repeats its background,
            which then wins ties against its copies.

    """
    source = z.detach().max(dim=1).indices  # torch promises the first of equals
    return Blend(z.gather(1, source[:, None])[:, 0], source)


def m_step_loss(p: Tensor, z: Tensor, strong: Tensor | None = None, strong_weight: float = 0.0) -> Tensor:
    """M-step: binary cross-entropy of the student against the blended labels, which get no gradient (Eq. 20).

    Args:
        p: (B, C) logits of the weak view.
        z: (B, C) blended label logits.
        strong: (B, C) logits of the strong view; None where there is none.
        strong_weight: weight of the strong view's loss (released code: 0.7; the paper has none).

    Returns:
        Scalar, mean over images and classes.

    """
    target = torch.sigmoid(z.detach())
    loss = binary_cross_entropy_with_logits(p, target)
    if strong is not None:
        loss = loss + strong_weight * binary_cross_entropy_with_logits(strong, target)
    return loss


def e_step_loss(z: Tensor, p: Tensor) -> Tensor:
    """E-step: binary cross-entropy of the blended labels against the student, which gets no gradient (Eq. 19).

    Args:
        z: (B, C) blended label logits.
        p: (B, C) student logits of the weak view.

    Returns:
        Scalar, mean over images and classes.

    """
    return binary_cross_entropy_with_logits(z, torch.sigmoid(p.detach()))


BETAS = (0.9, 0.999)
EPSILON = 1e-8
HORIZON = 256
"""Steps after which the momentum left by a gradient is taken as spent: (0.9 / sqrt(0.999))^256 is below 1e-11."""
ROWS_AT_ONCE = 256
"""Rows that are brought up to date together at the end: HORIZON times their size is held in memory."""


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on an Apple GPU, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class LabelTable:
    """Z as a parameter under a lazy AdamW.

    Each step: read the labels of the rows in use with `rows`, put the gradient of the E-step's loss on them, and give
    it to `step`. Steps count from 0 and follow one another.

    What AdamW takes of a step is looked up in tables, and a row lies next to its moments, so that a step has few
    operators: on a GPU, launching them takes longer than computing them.

    Args:
        z: (N, C) float32 logits to start from; copied.
        rates: learning rate of every step to come; 0 leaves a step without effect on Z, decay included.
        weight_decay: AdamW's.

    """

    def __init__(self, z: Tensor, rates: Sequence[float] | Tensor, weight_decay: float) -> None:
        self._table = z.new_zeros(len(z), 3, *z.shape[1:])
        self._table[:, 0] = z.detach()
        self.z, self.mean, self.square = self._table.unbind(1)
        self.last = torch.zeros(len(z), dtype=torch.int64, device=z.device)  # steps that a row has seen
        self._last_on_host = torch.zeros(len(z), dtype=torch.int64)  # the same, where reading it waits for no GPU
        self.steps = 0
        self._rates = torch.cat([torch.zeros(1, dtype=torch.float64), torch.as_tensor(rates, dtype=torch.float64)])
        self._log_kept = torch.cumsum(torch.log1p(-self._rates * weight_decay), 0)
        self._gap = torch.arange(len(self._rates))
        faded = torch.tensor(BETAS, dtype=torch.float64) ** self._gap[:, None]  # (T + 1, 2)
        by_step = torch.cat([self._rates[:, None], self._log_kept[:, None], 1 - faded], dim=1)
        wide = widest_float(z.device)
        self._by_step, self._faded = by_step.to(z.device, wide), faded.to(z.device, wide)
        self._gap = self._gap.to(z.device)

    def rows(self, index: Tensor) -> Tensor:
        """Bring rows up to date and return a copy of them, (n, C), that takes a gradient.

        Args:
            index: (n,) int64 on the CPU, distinct.

        """
        rows = index.to(self.z.device, non_blocking=True)
        current = self._current(index, rows)
        self._write(index, rows, current)
        return current[:, 0].clone().requires_grad_()

    def step(self, index: Tensor, gradient: Tensor) -> None:
        """Make one AdamW step; rows outside `index` have the gradient zero.

        Args:
            index: (n,) int64 on the CPU, distinct rows, as given to `rows` just before.
            gradient: (n, C) of the loss with respect to these rows.

        """
        self.steps += 1
        rate = float(self._rates[self.steps])
        kept = torch.exp(self._log_kept[self.steps] - self._log_kept[self.steps - 1]).to(gradient.dtype)
        rows = index.to(self.z.device, non_blocking=True)
        z, mean, square = self._table[rows].unbind(1)
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        move = (mean / (1 - BETAS[0] ** self.steps)) / ((square / (1 - BETAS[1] ** self.steps)).sqrt() + EPSILON)
        self._write(index, rows, torch.stack([float(kept) * z - rate * move, mean, square], dim=1))

    def materialize(self) -> Tensor:
        """Return Z, (N, C), with every row up to date; the table itself stays as it is."""
        blocks = torch.split(torch.arange(len(self.z)), ROWS_AT_ONCE)
        current = [self._current(index, index.to(self.z.device))[:, 0] for index in blocks]
        return torch.cat(current) if current else self.z.clone()

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return all that changes, for a checkpoint."""
        return {"z": self.z, "mean": self.mean, "square": self.square, "last": self.last, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned."""
        for name in ("z", "mean", "square", "last"):
            getattr(self, name).copy_(state[name])
        self._last_on_host.copy_(self.last)
        self.steps = int(state["steps"])

    def _write(self, index: Tensor, rows: Tensor, values: Tensor) -> None:
        """Store rows, on the CPU and on the table's device, that are up to date."""
        self._table[rows] = values
        self._last_on_host[index] = self.steps
        self.last[rows] = self.steps

    def _current(self, index: Tensor, rows: Tensor) -> Tensor:
        """Compute z, mean and square of rows, (n, 3, C), after `self.steps` steps, those missed with gradient zero.

        With s the last step seen, r the rate and K the product of the decay factors, a row's value at T is
        z_s K_T / K_s - sum over t in (s, T] of r_t u_t K_T / K_t, where
        u_t = (b1^(t-s) m_s / (1 - b1^t)) / (sqrt(b2^(t-s) v_s / (1 - b2^t)) + epsilon).
        """
        stored, last = self._table[rows], self.last[rows]
        span = min(HORIZON, self.steps - int(self._last_on_host[index].min())) if len(index) else 0
        if span == 0:
            return stored
        z, mean, square = stored.unbind(1)
        missed, gap = self.steps - last[:, None], self._gap[: span + 1]
        by_step = self._by_step[(last[:, None] + gap).clamp_(max=self.steps)]  # (n, 1 + span, 4), of t from s on
        left = torch.exp(self._by_step[self.steps, 1] - by_step[:, :, 1])  # K_T / K_t
        rate, _, bias, square_bias = by_step[:, 1:].unbind(2)
        by_gap, square_by_gap = self._faded[1 : span + 1].unbind(1)
        first = rate * left[:, 1:] * by_gap / bias * (gap[1:] <= missed)
        second = (square_by_gap / square_bias).sqrt()
        root = square.sqrt()[:, None]
        divisor = (second.to(z.dtype)[:, :, None] * root).add_(EPSILON)
        moves = mean * torch.bmm(first.to(z.dtype)[:, None], divisor.reciprocal_())[:, 0]
        moments = (stored[:, 1:] * self._faded[missed[:, 0], :, None]).to(z.dtype)
        return torch.cat([(z * left[:, :1].to(z.dtype) - moves)[:, None], moments], dim=1)

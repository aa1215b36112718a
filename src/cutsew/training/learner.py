"""What is learnt, adapter and estimator, and one joint step of both (Algorithm 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cutsew.config.student import Train
from cutsew.errors import UserError
from cutsew.numerics.adapter import Adapter
from cutsew.numerics.adapter_parts import InParts
from cutsew.numerics.em import blend, e_loss, m_loss
from cutsew.numerics.estimator import Estimator
from cutsew.numerics.schedule import rate_factors
from cutsew.steady import threads


@dataclass(frozen=True)
class Losses:
    """Losses of one step, before their weights."""

    m: float
    e: float


class Learner:
    """Adapter and estimator with their AdamW, stepping together.

    The adapter's groups are stepped by torch's AdamW and Z by the estimator's own lazy one, with the same weight decay
    and schedule.

    Args:
        adapter: on its device.
        z: (n, C) float32 labels to start from.
        train: settings.
        steps: how many steps there will be.

    """

    def __init__(self, adapter: Adapter, z: Tensor, train: Train, steps: int) -> None:
        self.adapter = adapter.train()
        self._train = train
        factors = rate_factors(steps, train.schedule, train.warmup)
        lr_decoder = train.lr_adapter if train.lr_decoder is None else train.lr_decoder
        self.rates: npt.NDArray[np.float64] = np.outer(factors, [train.lr_adapter, lr_decoder, train.lr_estimator])
        if train.em_weight == 0:
            self.rates[:, 2] = 0
        decoder = list(adapter.decoder.parameters())
        ids = {id(weight) for weight in decoder}
        rest = [weight for weight in adapter.parameters() if id(weight) not in ids]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": decoder}]
        self._optimizer = torch.optim.AdamW(groups, lr=train.lr_adapter, weight_decay=train.weight_decay, fused=True)
        on_cpu = adapter.queries.device.type == "cpu"
        self._answer = InParts(self.adapter, threads()) if on_cpu else self.adapter
        self.estimator = Estimator(z, self.rates[:, 2].tolist(), train.weight_decay)

    def step(self, number: int, sources: Tensor, weak: Tensor, strong: Tensor | None) -> Losses:
        """Make step `number`: M-step on the adapter, E-step on the winning labels.

        Args:
            number: from 0.
            sources: (B, 1 + L) int64 rows of Z, background first.
            weak: (B, D, H, W) features.
            strong: of the strong view, or None.

        Raises:
            UserError: the loss is no longer finite.

        """
        index, place = torch.unique(sources, return_inverse=True)
        rows = self.estimator.rows(index)
        z = blend(rows[place]).z
        p = self._answer(weak)
        q = None if strong is None else self._answer(strong)
        m, e = m_loss(p, z, q, self._train.strong_weight), e_loss(z, p)
        losses = Losses(float(m.detach()), float(e.detach()))
        if not np.isfinite([losses.m, losses.e]).all():
            raise UserError(f"train.lr_adapter: the loss is not finite at step {number}; lower the learning rates")
        for group, rate in zip(self._optimizer.param_groups, self.rates[number], strict=False):
            group["lr"] = float(rate)
        self._optimizer.zero_grad()
        (m + self._train.em_weight * e).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if rows.grad is not None:
            self.estimator.step(index, rows.grad)
        return losses

    def state(self) -> dict[str, Any]:
        """Return all that changes, for a checkpoint."""
        return {
            "adapter": self.adapter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "estimator": self.estimator.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.estimator.restore(state["estimator"])


def history_rows(losses: Sequence[Losses], rates: npt.NDArray[np.float64], per_epoch: int) -> list[dict[str, float]]:
    """Lay out history.csv: one row per step."""
    return [
        {
            "step": step,
            "epoch": step // per_epoch,
            "m_loss": loss.m,
            "e_loss": loss.e,
            "lr_adapter": float(rates[step, 0]),
            "lr_estimator": float(rates[step, 2]),
        }
        for step, loss in enumerate(losses)
    ]

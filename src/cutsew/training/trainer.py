"""Training of the adapter and refinement of the labels: Algorithm 1, resumable at every checkpoint."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.training import AdapterConfig as AdapterSettings
from cutsew.config.training import AdapterTrainingConfig
from cutsew.errors import UserError
from cutsew.method.adapter import MAX_GRID, Adapter
from cutsew.method.em import LabelTable, blend, e_step_loss, m_step_loss
from cutsew.method.linear_head import LinearHead
from cutsew.method.random import torch_seed
from cutsew.method.schedule import rate_factors
from cutsew.runtime.batching import worker_pool
from cutsew.storage.atomic import atomic_path
from cutsew.training.computed_features import FeatureBatch
from cutsew.training.features import FeatureSource
from cutsew.training.parallel_adapter import SplitBatchAdapter

log = logging.getLogger(__name__)
NAME = ".train.checkpoint.pt"


SHARE = 1 / 20
"""Share of a training's time that checkpoints may take."""

WRITE_RATE = 100e6
"""Bytes per second that a disk is assumed to write until the first checkpoint has been timed."""


class Checkpoint:
    """One checkpoint file, replaced atomically.

    Args:
        folder: where the adapter will be written.
        signature: digest of settings and inputs; a checkpoint with another one is not used.
        pause: minimum seconds between checkpoints. The interval is longer where writing would take more than SHARE of
            the time: of many images or classes a checkpoint has gigabytes. 0 writes one after every step.

    """

    def __init__(self, folder: Path, signature: str, pause: float) -> None:
        self.path = folder / NAME
        self._signature = signature
        self._pause = pause
        self._started = self._saved = time.monotonic()
        self._spent = self._cost = 0.0

    def expect(self, size: int) -> None:
        """Expect checkpoints of this many bytes, as long as none has been written."""
        self._cost = size / WRITE_RATE

    def load(self, device: str) -> dict[str, Any] | None:
        """Return what was saved last, or None where there is nothing that fits."""
        if not self.path.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in many ways, and starting over fixes them all
            log.info("%s: unreadable (%s); training starts over", self.path, type(error).__name__)
            return None
        if saved.get("signature") != self._signature:
            log.info("%s: of other settings or inputs; training starts over", self.path)
            return None
        return saved

    def due(self) -> bool:
        """Say whether it is time to save."""
        now = time.monotonic()
        affordable = (self._spent + self._cost) <= SHARE * (now - self._started + self._cost)
        return now - self._saved >= self._pause and (affordable or self._pause == 0)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        start = time.monotonic()
        with atomic_path(self.path) as draft:
            torch.save({**state, "signature": self._signature}, draft)
        self._saved = time.monotonic()
        self._cost = self._saved - start
        self._spent += self._cost

    def remove(self) -> None:
        """Remove the checkpoint after success."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Losses:
    """Losses of one step, before their weights."""

    m: float
    e: float


class TrainingResult(NamedTuple):
    """What training gives.

    Attributes:
        adapter: the head, in evaluation mode.
        z: (n, C) float32, the refined pseudo-labels.
        history: one row per step: step, epoch, m_loss, e_loss, lr_adapter, lr_estimator.
        facts: further facts for the record.

    """

    adapter: Adapter | LinearHead
    z: npt.NDArray[np.float32]
    history: list[dict[str, float]]
    facts: Mapping[str, Any]


class Trainer:
    """Interactive cutting and sewing (Algorithm 1): adapter and labels learn from each other on sewn images.

    torch's AdamW updates the adapter, and a lazy AdamW with the same weight decay and schedule the label table Z.

    Args:
        adapter: on its device.
        z: (n, C) float32 label logits to start from, on the same device.
        train: settings.
        steps_per_epoch: how many batches show all images once.
        checkpoint: where to save.

    """

    def __init__(
        self, adapter: Adapter, z: Tensor, train: AdapterTrainingConfig, steps_per_epoch: int, checkpoint: Checkpoint
    ) -> None:
        self.adapter = adapter.train()
        self.losses: list[Losses] = []
        self._train, self._steps_per_epoch, self._checkpoint = train, steps_per_epoch, checkpoint
        self._device = adapter.queries.device
        self._rates = _learning_rates(train, steps_per_epoch * train.num_epochs)
        self.labels = LabelTable(z, self._rates[:, 2].tolist(), train.weight_decay)
        decoder = list(adapter.decoder.parameters())
        ids = {id(weight) for weight in decoder}
        rest = [weight for weight in adapter.parameters() if id(weight) not in ids]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": decoder}]
        self._optimizer = torch.optim.AdamW(groups, lr=train.lr_adapter, weight_decay=train.weight_decay, fused=True)
        checkpoint.expect(3 * (z.nbytes + sum(weight.nbytes for weight in adapter.parameters())))  # and two moments
        split = self._device.type == "cpu" and adapter.num_groups == 1
        self._predict = SplitBatchAdapter(adapter, worker_pool()) if split else adapter

    def fit(self, features: FeatureSource) -> TrainingResult:
        """Train for all epochs, from the checkpoint on where there is one.

        Raises:
            UserError: an image is bad, or the loss diverges.

        """
        self._resume()
        steps = range(len(self.losses), len(self._rates))
        with (
            torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []),
            tqdm(total=len(self._rates), initial=len(self.losses), desc="train", unit="step") as bar,
        ):
            for batch in features.batches(steps):
                losses = self.training_step(batch)
                bar.set_postfix(m=f"{losses.m:.3f}", e=f"{losses.e:.3f}", refresh=False)
                bar.update()
                if self._checkpoint.due():
                    self._checkpoint.save(self.state_dict())
        refined: npt.NDArray[np.float32] = self.labels.materialize().cpu().numpy()
        return TrainingResult(self.adapter.eval(), refined, self.history(), {"sewn_epochs": self._train.num_epochs})

    def training_step(self, batch: FeatureBatch) -> Losses:
        """Blend the labels of a batch (Eq. 13), and make the M-step and the E-step, both from the same prediction.

        Raises:
            UserError: the loss is no longer finite.

        """
        step = len(self.losses)
        torch.manual_seed(torch_seed(self._train.seed, "step", step))  # dropout's draws
        index, inverse = torch.unique(batch.sources, return_inverse=True)
        rows = self.labels.rows(index)
        z = blend(rows[inverse.to(self._device, non_blocking=True)]).z
        p = self._predict(batch.weak)
        strong = None if batch.strong is None else self._predict(batch.strong)
        m_loss, e_loss = m_step_loss(p, z, strong, self._train.strong_weight), e_step_loss(z, p)
        losses = Losses(*torch.stack([m_loss, e_loss]).detach().tolist())  # one wait for the GPU
        if not np.isfinite([losses.m, losses.e]).all():
            raise UserError(f"train.lr_adapter: the loss is not finite at step {step}; lower the learning rates")
        self.m_step(m_loss)
        self.e_step(e_loss, index, rows)
        self.losses.append(losses)
        return losses

    def m_step(self, loss: Tensor) -> None:
        """Update the adapter; the labels stay as they are (Eq. 20)."""
        for group, rate in zip(self._optimizer.param_groups, self._rates[len(self.losses)], strict=False):
            group["lr"] = float(rate)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def e_step(self, loss: Tensor, index: Tensor, rows: Tensor) -> None:
        """Update the labels that won the blend; the adapter stays as it is (Eq. 17-19).

        Args:
            loss: of the blended labels against the adapter's prediction.
            index: (m,) int64 distinct rows of Z in the batch, on the CPU.
            rows: (m, C) their logits, a leaf of `loss`.

        """
        (self._train.em_weight * loss).backward()  # type: ignore[no-untyped-call]
        if rows.grad is not None:
            self.labels.step(index, rows.grad)

    def history(self) -> list[dict[str, float]]:
        """Lay out history.csv: one row per step."""
        return [
            {
                "step": step,
                "epoch": step // self._steps_per_epoch,
                "m_loss": loss.m,
                "e_loss": loss.e,
                "lr_adapter": float(self._rates[step, 0]),
                "lr_estimator": float(self._rates[step, 2]),
            }
            for step, loss in enumerate(self.losses)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, for a checkpoint."""
        return {
            "adapter": self.adapter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "labels": self.labels.state_dict(),
            "losses": torch.tensor([[loss.m, loss.e] for loss in self.losses], dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.labels.load_state_dict(state["labels"])
        self.losses = [Losses(m, e) for m, e in state["losses"].tolist()]

    def _resume(self) -> None:
        saved = self._checkpoint.load(str(self._device))
        if saved is not None:
            self.load_state_dict(saved)
            log.info("training resumes at step %d", len(self.losses))


def new_adapter(channels: int, classes: int, settings: AdapterSettings, grid: tuple[int, int], seed: int) -> Adapter:
    """Build an adapter for a grid of features; its initial weights depend on `seed` and the sizes alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "adapter"))
        return Adapter(channels, classes, **settings.model_dump(), max_grid=max(MAX_GRID, *grid))


def _learning_rates(train: AdapterTrainingConfig, steps: int) -> npt.NDArray[np.float64]:
    """Return the rates of each step, (steps, 3): of the adapter, of its decoder, of the labels."""
    lr_decoder = train.lr_adapter if train.lr_decoder is None else train.lr_decoder
    lr_labels = 0.0 if train.em_weight == 0 else train.lr_estimator
    factors = rate_factors(steps, train.schedule, train.warmup)
    rates: npt.NDArray[np.float64] = np.outer(factors, [train.lr_adapter, lr_decoder, lr_labels])
    return rates

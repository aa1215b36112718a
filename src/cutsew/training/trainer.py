"""The training of the adapter: checkpoint, one EM step, and the loop (Algorithm 1).

- The file from which a killed training goes on.
- What is learnt, adapter and estimator, and one joint step of both (Algorithm 1).
- The training loop: interactive cutting and sewing over all epochs, resumable at every checkpoint (Algorithm 1).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.method import Sew
from cutsew.config.networks import Adapter as AdapterSettings
from cutsew.config.networks import Train
from cutsew.errors import UserError
from cutsew.method.adapter import MAX_GRID, Adapter
from cutsew.method.em import Estimator, blend, e_loss, m_loss
from cutsew.method.linear_head import LinearHead
from cutsew.method.random import torch_seed
from cutsew.method.schedule import rate_factors
from cutsew.runtime.batching import threads
from cutsew.storage.atomic import replacing
from cutsew.training.cache_policy import Keeping
from cutsew.training.distributed import Team
from cutsew.training.features import Feed
from cutsew.training.parallel_adapter import InParts
from cutsew.training.sewing_plan import Album
from cutsew.training.sewn_dataset import steps_per_epoch

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

log = logging.getLogger(__name__)
NAME = ".train.checkpoint.pt"


class Checkpoint:
    """One checkpoint file, replaced atomically.

    Args:
        folder: where the adapter will be written.
        signature: digest of settings and inputs; a checkpoint with another one is not used.
        pause: least seconds between checkpoints, so that short steps are not spent on writing.

    """

    def __init__(self, folder: Path, signature: str, pause: float) -> None:
        self.path = folder / NAME
        self._signature = signature
        self._pause = pause
        self._saved = time.monotonic()

    def load(self, device: str) -> dict[str, Any] | None:
        """Return what was saved last, or None where there is nothing that fits."""
        if not self.path.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in many ways, and starting anew mends all
            log.info("%s: unreadable (%s); training starts anew", self.path, type(error).__name__)
            return None
        if saved.get("signature") != self._signature:
            log.info("%s: made with other settings or inputs; training starts anew", self.path)
            return None
        return saved

    def due(self) -> bool:
        """Say whether it is time to save."""
        return time.monotonic() - self._saved >= self._pause

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with replacing(self.path) as draft:
            torch.save({**state, "signature": self._signature}, draft)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint after success."""
        self.path.unlink(missing_ok=True)


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


class Trained(NamedTuple):
    """What training made.

    Attributes:
        adapter: the head, in evaluation mode.
        z: (n, C) float32, the refined pseudo-labels.
        history: one row per step: step, epoch, m_loss, e_loss, lr_adapter, lr_estimator.
        features: name of the folder in which its features are kept; None where they are not.
        facts: what else the record tells.

    """

    adapter: Adapter | LinearHead
    z: npt.NDArray[np.float32]
    history: list[dict[str, float]]
    features: str | None
    facts: Mapping[str, Any]


def new_adapter(channels: int, classes: int, settings: AdapterSettings, max_grid: int, seed: int) -> Adapter:
    """Build an adapter whose initial weights depend on `seed` and the sizes alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "adapter"))
        return Adapter(channels, classes, **settings.model_dump(), max_grid=max_grid)


def fit(
    backbone: "Backbone",
    album: Album,
    z: npt.NDArray[np.float32],
    *,
    adapter: AdapterSettings,
    sew: Sew,
    train: Train,
    checkpoint: Checkpoint,
    device: str,
    workers: int,
    team: Team,
    keeping: Keeping | None = None,
) -> Trained:
    """Train adapter and estimator, going on from the checkpoint where there is one.

    Args:
        backbone: frozen, on `device`.
        album: n training photos and which of them are pasted.
        z: (n, C) float32 label logits to start from.
        adapter: sizes of the adapter.
        sew: how photos are sewn.
        train: how it is trained.
        checkpoint: where to save.
        device: cpu or cuda.
        workers: processes that decode and sew; they do not change the result.
        team: this process, the first of those that train together.
        keeping: where features are kept from one training to the next; they do not change the result.

    Raises:
        UserError: a photo is bad, there are too few, or the loss diverges.

    """
    if device == "cpu":
        threads()  # the adapter computes in one thread, from the first step on
    grid = backbone.grid
    _refuse_single_values(len(album.paths), train.batch_size, grid)
    per_epoch = steps_per_epoch(len(album.paths), train.batch_size)
    model = new_adapter(backbone.width, z.shape[1], adapter, max(MAX_GRID, *grid), train.seed).to(device)
    learner = Learner(model, torch.from_numpy(z).to(device), train, per_epoch * train.num_epochs)
    losses = _restore(learner, checkpoint, device)
    feed = Feed(backbone, album, sew, train, device, workers, team, keeping)
    with (
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []),
        tqdm(total=len(learner.rates), initial=len(losses), desc="train", unit="step") as bar,
    ):
        for fed in feed.steps(team.agree(len(losses))):
            torch.manual_seed(torch_seed(train.seed, "step", len(losses)))  # dropout's draws
            losses.append(learner.step(len(losses), fed.sources, fed.weak, fed.strong))
            bar.set_postfix(m=f"{losses[-1].m:.3f}", e=f"{losses[-1].e:.3f}", refresh=False)
            bar.update()
            if checkpoint.due():
                checkpoint.save(_state(learner, losses))
    refined: npt.NDArray[np.float32] = learner.estimator.settled().cpu().numpy()
    features = None if feed.cache is None else feed.cache.path.name
    facts = {"sewn_epochs": train.num_epochs}
    return Trained(model.eval(), refined, history_rows(losses, learner.rates, per_epoch), features, facts)


def _refuse_single_values(photos: int, batch_size: int, grid: tuple[int, int]) -> None:
    """BatchNorm needs more than one value per channel in every batch."""
    if photos == 0:
        raise UserError("dataset: no photos to train on; hold out fewer")
    if grid == (1, 1) and min(photos, batch_size) == 1:
        raise UserError("train.batch_size: with a grid of one cell a batch needs at least two photos; use more")


def _state(learner: Learner, losses: list[Losses]) -> dict[str, Any]:
    return {**learner.state(), "losses": torch.tensor([[x.m, x.e] for x in losses], dtype=torch.float64)}


def _restore(learner: Learner, checkpoint: Checkpoint, device: str) -> list[Losses]:
    saved = checkpoint.load(device)
    if saved is None:
        return []
    learner.restore(saved)
    losses: Tensor = saved["losses"]
    log.info("training goes on from step %d", len(losses))
    return [Losses(m, e) for m, e in losses.tolist()]

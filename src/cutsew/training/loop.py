"""The training loop: interactive cutting and sewing over all epochs, resumable at every checkpoint (Algorithm 1)."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from cutsew.config.method import Sew
from cutsew.config.student import Adapter as AdapterSettings
from cutsew.config.student import Train
from cutsew.errors import UserError
from cutsew.numerics.adapter import MAX_GRID, Adapter
from cutsew.numerics.draw import torch_seed
from cutsew.numerics.linear_head import LinearHead
from cutsew.steady import threads
from cutsew.training.album import Album
from cutsew.training.checkpoint import Checkpoint
from cutsew.training.feed import Feed
from cutsew.training.keeping import Keeping
from cutsew.training.learner import Learner, Losses, history_rows
from cutsew.training.sewn import steps_per_epoch
from cutsew.training.team import Team

if TYPE_CHECKING:
    from cutsew.backbones.base import Backbone

log = logging.getLogger(__name__)


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

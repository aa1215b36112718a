"""Training of the linear head: rows of frozen features, a learning rate chosen without labels, and one short fit."""

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cutsew.config.training import AdapterTrainingConfig, LinearTrainingConfig
from cutsew.errors import UserError
from cutsew.method.em import blend, widest_float
from cutsew.method.linear_head import INITIAL_STD, LinearHead, calibrated_loss, head_loss, logits, standardize
from cutsew.method.random import keyed_rng, torch_seed
from cutsew.method.schedule import rate_factors
from cutsew.runtime.batching import worker_pool
from cutsew.training.computed_features import FeatureBatch
from cutsew.training.features import KEPT_BYTES, FeatureSource
from cutsew.training.sewn_dataset import steps_per_epoch
from cutsew.training.trainer import Checkpoint, TrainingResult

if TYPE_CHECKING:
    from cutsew.models.frozen_backbone import Backbone

log = logging.getLogger(__name__)

BLOCK = 2**22
"""Logits that are converted to double precision at a time."""

RATE_PAIRS = 2**23
"""Most pairs of image and class, of each half, that the rate is chosen by: they are held in double precision."""

LEAST_ROWS = 8
"""Sewn images that each half needs for the rate to be chosen; fewer say nothing."""


class Budget(NamedTuple):
    """How much of the sewn images' features is held in memory.

    Attributes:
        sewn_epochs: epochs of sewn images that are made.
        rows: sewn images whose features are held.
        sample: sewn images, the first of them, from which mean and standard deviation are taken.
        streams: whether features are used as they are made, since those of one epoch do not fit into memory.
        batches: of features that training reads.

    """

    sewn_epochs: int
    rows: int
    sample: int
    streams: bool
    batches: int


class Rows(NamedTuple):
    """Features and label sources of sewn images.

    Attributes:
        cells: (R, K, D) float16, standardized.
        sources: (R, 1 + L) int64 rows of Z, background first.

    """

    cells: Tensor
    sources: Tensor


def budget(images: int, cell_bytes: int, settings: LinearTrainingConfig, limit: int) -> Budget:
    """Decide what is held in memory; it depends on sizes and settings alone.

    Args:
        images: n, training images.
        cell_bytes: of one image's features as float16.
        settings: of the head.
        limit: bytes of memory for features.

    """
    per_epoch = steps_per_epoch(images, settings.batch_size)
    expected = math.ceil(settings.steps / per_epoch)
    held = max(settings.batch_size, limit // cell_bytes)
    sample = max(settings.batch_size, held // 8)  # these are float32 for a while
    if held < images:
        rows = min(held, settings.steps * settings.batch_size)  # those that are trained on, and no more
        return Budget(expected, rows, min(sample, rows), streams=True, batches=settings.steps)
    epochs = min(expected, settings.sewn_epochs, held // images)
    return Budget(epochs, epochs * images, min(sample, images), streams=False, batches=epochs * per_epoch)


def feature_settings(plan: Budget, settings: LinearTrainingConfig) -> AdapterTrainingConfig:
    """Return the settings of the features: weak views alone, as many epochs as are used."""
    return AdapterTrainingConfig(epochs=plan.sewn_epochs, batch_size=settings.batch_size, seed=settings.seed)


def budget_of(backbone: "Backbone", images: int, settings: LinearTrainingConfig) -> Budget:
    """Return the `budget` of images on a backbone in `KEPT_BYTES` of memory."""
    return budget(images, 2 * backbone.width * math.prod(backbone.grid), settings, KEPT_BYTES)


def fit_linear(
    features: FeatureSource,
    plan: Budget,
    z: npt.NDArray[np.float32],
    *,
    settings: LinearTrainingConfig,
    seed: int,
    checkpoint: Checkpoint,
    device: str,
) -> TrainingResult:
    """Fit a linear head to blended labels (Eq. 13) on sewn images; the labels stay as they are.

    Args:
        features: of sewn images, by the settings that `feature_settings` returns.
        plan: how many of them are held in memory.
        z: (n, C) float32 label logits.
        settings: of the head.
        seed: of order, halves and initial weights.
        checkpoint: where to save, where features are used as they are made.
        device: cpu, cuda or mps.

    Returns:
        The head; its z are the labels as they were given.

    Raises:
        UserError: an image is bad, or the loss diverges.

    """
    if device == "cpu":
        worker_pool()  # the last bits must not depend on the number of threads
    labels = torch.from_numpy(z).to(device)
    prior = _prior(labels)
    saved = checkpoint.load(device) if plan.streams else None
    start = 0 if saved is None else len(saved["losses"])
    stream = features.batches(range(start, plan.batches))
    if saved is None:
        batches, mean, std = _collect(stream, plan)
        rows = _joined(batches)
        rate, tried = _choose_rate(rows, labels, prior, settings, seed)
    else:
        batches, mean, std, rate, tried = [], saved["mean"], saved["std"], saved["rate"], saved["tried"]
    fit = _Fit(labels, prior, len(mean), [rate], settings, seed)
    checkpoint.expect(3 * 4 * z.shape[1] * (len(mean) + 1))  # weights and their two moments
    losses: list[float] = []
    if saved is not None:
        fit.load_state_dict(saved["fit"])
        losses = saved["losses"]
        log.info("training resumes at step %d", len(losses))
    shown: Iterator[Rows]
    if plan.streams:
        shown = chain(batches, (_standardized([batch], mean, std) for batch in stream))
    else:
        shown = _shuffled(rows, settings.batch_size, seed)
    with tqdm(total=settings.steps, initial=start, desc="train", unit="step") as bar:
        for step, batch in zip(range(start, settings.steps), shown, strict=False):
            losses.append(fit.step(step, batch.cells, batch.sources))
            bar.update()
            if plan.streams and checkpoint.due():
                state = {"fit": fit.state_dict(), "losses": losses, "mean": mean, "std": std}
                checkpoint.save({**state, "rate": rate, "tried": tried})
    head = fit.head(0, mean, std)
    per_epoch = steps_per_epoch(len(z), settings.batch_size)
    history = [
        {
            "step": step,
            "epoch": step // per_epoch,
            "m_loss": loss,
            "e_loss": 0.0,
            "lr_adapter": rate * float(fit.factors[step]),
            "lr_estimator": 0.0,
        }
        for step, loss in enumerate(losses)
    ]
    facts = {"rate": rate, "calibrated_loss_by_rate": tried, "sewn_epochs": plan.sewn_epochs}
    return TrainingResult(head, z, history, facts)


class _Fit:
    """Heads that are trained side by side on the same batches, one per learning rate."""

    def __init__(
        self,
        z: Tensor,
        prior: Tensor,
        channels: int,
        rates: Sequence[float],
        settings: LinearTrainingConfig,
        seed: int,
    ) -> None:
        self._z = z
        self.factors = rate_factors(settings.steps, "cosine", 0.0)
        self._rates = list(rates)
        draw = torch.Generator().manual_seed(torch_seed(seed, "linear"))
        weight = INITIAL_STD * torch.randn(z.shape[1], channels, generator=draw)
        self._weights = [nn.Parameter(weight.clone().to(z.device)) for _ in self._rates]
        self._biases = [nn.Parameter(prior.clone().to(z.device)) for _ in self._rates]
        groups = [{"params": list(pair), "lr": 0.0} for pair in zip(self._weights, self._biases, strict=True)]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay)

    def step(self, number: int, cells: Tensor, sources: Tensor) -> float:
        """Make step `number` on one batch; return the mean loss of an image and class over the heads.

        Raises:
            UserError: the loss is no longer finite.

        """
        target = self.targets(sources)
        loss = torch.stack([head_loss(one, target) for one in self.predict(cells)])
        mean = float(loss.detach().mean()) / target.shape[1]
        if not math.isfinite(mean):
            raise UserError(f"train.lr: the loss is not finite at step {number}; lower the learning rate")
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * float(self.factors[number])
        self._optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return mean

    def targets(self, sources: Tensor) -> Tensor:
        """Blend the labels of (B, 1 + L) sources: (B, C) probabilities."""
        return torch.sigmoid(blend(self._z[sources.to(self._z.device, non_blocking=True)]).z)

    def predict(self, cells: Tensor) -> list[Tensor]:
        """Return each head's (B, C) logits of (B, K, D) cells."""
        weight, bias = torch.cat([*self._weights]), torch.cat([*self._biases])
        together = logits(cells.to(self._z.device, non_blocking=True).float(), weight, bias)
        return list(torch.split(together, self._z.shape[1], dim=1))

    def head(self, index: int, mean: Tensor, std: Tensor) -> LinearHead:
        """Return one head as a module in evaluation mode."""
        weight, bias = self._weights[index].detach(), self._biases[index].detach()
        head = LinearHead(weight.shape[1], weight.shape[0]).to(weight.device)
        head.load_state_dict(
            {"mean": mean.to(weight.device), "std": std.to(weight.device), "weight": weight, "bias": bias}
        )
        return head.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, for a checkpoint."""
        return {
            "weights": [one.detach() for one in self._weights],
            "biases": [one.detach() for one in self._biases],
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        with torch.no_grad():
            for own_values, theirs in zip(
                self._weights + self._biases, state["weights"] + state["biases"], strict=True
            ):
                own_values.copy_(theirs)
        self._optimizer.load_state_dict(state["optimizer"])


def _prior(z: Tensor) -> Tensor:
    """Logit of each class's mean probability in (n, C) logits: (C,) float32 on the CPU, a block of images at a time."""
    images, classes = z.shape
    block = z.new_empty(min(images, max(1, BLOCK // classes)), classes, dtype=widest_float(z.device))
    total = block.new_zeros(classes)
    for part in torch.split(z, len(block)):
        total += block[: len(part)].copy_(part).sigmoid_().sum(dim=0)
    return (total / images).logit(1e-4).float().cpu()


def _collect(stream: Iterator[FeatureBatch], plan: Budget) -> tuple[list[Rows], Tensor, Tensor]:
    """Take batches from the stream until the budget's rows are held; give them with their mean and std, (D,) each."""
    sample: list[FeatureBatch] = []
    while sum(len(batch.sources) for batch in sample) < plan.sample and (batch := next(stream, None)) is not None:
        sample.append(batch)
    mean, std = _channel_statistics(sample)
    held = [_standardized([batch], mean, std) for batch in sample]
    count = sum(len(rows.sources) for rows in held)
    while count < plan.rows and (batch := next(stream, None)) is not None:
        held.append(_standardized([batch], mean, std))
        count += len(batch.sources)
    return held, mean, std


def _channel_statistics(batches: Sequence[FeatureBatch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all cells: (D,) float32 each."""
    wide = widest_float(batches[0].weak.device)
    sums = [batch.weak.to(wide).sum(dim=(0, 2, 3)) for batch in batches]
    count = sum(batch.weak[:, 0].numel() for batch in batches)
    mean = torch.stack(sums).sum(dim=0) / count
    squares = [(batch.weak.to(wide) - mean[:, None, None]).square().sum(dim=(0, 2, 3)) for batch in batches]
    return mean.float(), (torch.stack(squares).sum(dim=0) / count).sqrt().float()


def _standardized(batches: Sequence[FeatureBatch], mean: Tensor, std: Tensor) -> Rows:
    def rows(batch: FeatureBatch) -> Rows:
        sources = batch.sources.to(batch.weak.device, non_blocking=True)
        return Rows(standardize(batch.weak, mean, std).half(), sources)

    return _joined([rows(batch) for batch in batches])


def _joined(parts: list[Rows]) -> Rows:
    """Join batches to one; each is released as it is copied, so that the whole is held once."""
    total = sum(len(part.sources) for part in parts)
    cells = parts[0].cells.new_empty(total, *parts[0].cells.shape[1:])
    sources = parts[0].sources.new_empty(total, *parts[0].sources.shape[1:])
    start = 0
    for place, part in enumerate(parts):
        stop = start + len(part.sources)
        cells[start:stop], sources[start:stop] = part
        parts[place] = Rows(cells[start:stop], sources[start:stop])
        start = stop
    return Rows(cells, sources)


def _shuffled(rows: Rows, batch_size: int, seed: int) -> Iterator[Rows]:
    """Yield batches of rows forever, each pass in a different order."""
    count, epoch = len(rows.sources), 0
    while True:
        order = torch.from_numpy(keyed_rng(seed, "linear order", epoch).permutation(count)).to(rows.cells.device)
        full = [part for part in torch.split(order, batch_size) if len(part) == min(batch_size, count)]
        for part in full:
            yield Rows(rows.cells.index_select(0, part), rows.sources[part])  # copies whole rows, 3 times as fast
        epoch += 1


def _choose_rate(
    rows: Rows, z: Tensor, prior: Tensor, settings: LinearTrainingConfig, seed: int
) -> tuple[float, dict[str, float]]:
    """Choose the learning rate without labels: heads of one half of the images are evaluated on the other half.

    Sewn images whose sources all lie in one half train that half's heads, one per rate; each head is then evaluated on
    the other half's images, or an even sample of many, as sewn in the first epoch. The rate whose answers are closest
    to the labels, after one shared slope and offset, is taken.

    Returns:
        The rate, and the calibrated loss of each rate that was tried.

    """
    if settings.lr != "auto":
        return settings.lr, {}
    half = torch.from_numpy(keyed_rng(seed, "halves").permutation(len(z)) % 2).to(rows.sources.device)
    side = half[rows.sources]
    members = [torch.nonzero((side == which).all(dim=1))[:, 0] for which in (0, 1)]
    if min(map(len, members)) < LEAST_ROWS:
        fallback = sorted(settings.rates)[0]
        log.info("train.lr: too few images to choose a rate; %g is taken", fallback)
        return fallback, {}
    predicted: list[list[Tensor]] = [[] for _ in settings.rates]
    expected: list[Tensor] = []
    with tqdm(total=2 * settings.steps, desc="choose rate", unit="step") as bar:
        for own_values, other in (members, members[::-1]):
            fit = _Fit(z, prior, rows.cells.shape[2], settings.rates, settings, seed)
            batches = _shuffled(Rows(rows.cells[own_values], rows.sources[own_values]), settings.batch_size, seed)
            for step, batch in zip(range(settings.steps), batches, strict=False):
                fit.step(step, batch.cells, batch.sources)
                bar.update()
            background = rows.sources[other, 0].cpu().numpy()
            once = other[np.sort(np.unique(background, return_index=True)[1])]
            once = once[:: -(-len(once) * z.shape[1] // RATE_PAIRS)]
            with torch.inference_mode():
                for part in torch.split(once, settings.batch_size):
                    for answers, one in zip(predicted, fit.predict(rows.cells[part]), strict=True):
                        answers.append(one.cpu())
                    expected.append(fit.targets(rows.sources[part]).cpu())
    target = torch.cat(expected).numpy()
    tried = {
        f"{rate:g}": calibrated_loss(torch.cat(answers).numpy(), target)
        for rate, answers in zip(settings.rates, predicted, strict=True)
    }
    rate = min(settings.rates, key=lambda one: tried[f"{one:g}"])
    log.info("train.lr: %g is taken (%s)", rate, ", ".join(f"{key}: {value:.5f}" for key, value in tried.items()))
    return rate, tried

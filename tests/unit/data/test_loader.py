"""How worker processes hand over batches."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sewing_world import make_world

from cutsew.config.cutting import RandomCropsConfig
from cutsew.config.method import SewConfig
from cutsew.data import loader
from cutsew.data.loader import Collate, Guarded, Piped, PlainImage, batches, in_order
from cutsew.method.crops import Square
from cutsew.models.view_embedding import Look, Views
from cutsew.storage.manifest import read_manifest
from cutsew.training.sewing_plan import TrainingImages
from cutsew.training.sewn_dataset import SewnBatch, SewnDataset, collate


def nested(index):
    return [torch.full((2, 3), index, dtype=torch.uint8), torch.zeros(0)], np.full(2, index, np.float32)


def joined(items):
    return SewnBatch(items[0][0][0], torch.stack([item[0][0] for item in items]), None, items[0][1])


@pytest.fixture
def shared_memory(monkeypatch):
    """Let so many bytes of shared memory be free."""

    def free(size):
        monkeypatch.setattr(loader.shutil, "disk_usage", lambda _: SimpleNamespace(free=size))

    return free


@pytest.mark.parametrize(("free", "workers", "piped"), [(35, 2, True), (36, 2, False), (0, 0, False)])
def test_a_batch_that_does_not_fit_into_shared_memory_for_every_worker_goes_through_a_pipe(
    shared_memory, free, workers, piped
):
    shared_memory(free)
    batch = Collate(torch.stack, workers)([torch.zeros(6, dtype=torch.uint8)] * 2)
    assert isinstance(batch, Piped) is piped


def test_a_piped_batch_is_what_was_put_in(shared_memory):
    kept = list(batches(nested, 5, in_order(5, 2), joined, workers=1))
    shared_memory(0)
    for one, other in zip(kept, batches(nested, 5, in_order(5, 2), joined, workers=1), strict=True):
        assert isinstance(other, SewnBatch) and other.weak is None
        assert torch.equal(one.sources, other.sources) and torch.equal(one.has_weak, other.has_weak)
        assert isinstance(other.strong, np.ndarray) and np.array_equal(one.strong, other.strong)


def test_what_a_worker_is_given_can_be_pickled(tmp_path):
    """From Python 3.14 on, workers are no forks of this process but are sent what they work on."""
    manifest = read_manifest(make_world(tmp_path) / "images.parquet", split="train")
    square = Square(16, "bicubic")
    images = TrainingImages(
        manifest["path"].tolist(),
        manifest["digest"].tolist(),
        manifest[["width", "height"]].to_numpy(np.int64),
        np.arange(2),
    )
    sewn = SewnDataset(images, SewConfig(), square, 9, strong=True, skip_plain=True, workers=1)
    views = Views(pd.DataFrame(manifest), [Look(square, range(2), whole=True)], RandomCropsConfig())
    for item, join in (
        (sewn.__getitem__, collate),
        (views.__getitem__, Collate(torch.stack)),
        (PlainImage(images.paths, square), torch.stack),
    ):
        key = (0, 0) if item == sewn.__getitem__ else 0
        dataset, collating = pickle.loads(pickle.dumps((Guarded(item, 1), Collate(join, 1))))  # noqa: S301 - written above
        assert not isinstance(dataset[key], loader.Failure) and collating is not None

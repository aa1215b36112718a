"""Each link of the chain of feature sources, and what the chain consists of."""

from dataclasses import replace

import pytest
import torch
from sewing_world import TRAIN, backbone, make_world

from cutsew.config.method import SewConfig
from cutsew.config.networks import OpenClipStudentConfig
from cutsew.config.training import AdapterTrainingConfig
from cutsew.errors import UserError
from cutsew.storage.manifest import read_manifest
from cutsew.training.computed_features import ComputedFeatures, FeatureBatch
from cutsew.training.distributed import SINGLE, ProcessGroup
from cutsew.training.feature_cache import FeatureCache, Sizes
from cutsew.training.features import (
    BATCHES,
    PLAIN,
    STOP,
    CachedFeatures,
    DistributedFeatures,
    PlainFeatures,
    computed_features,
    feature_source,
    run_feature_worker,
)
from cutsew.training.sewing_plan import read_training_images

CELL = (12, 4, 4)
STEPS = range(9)  # three epochs of three batches


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"))
    return read_training_images(read_manifest(world / "images.parquet", split="train"), world / "patches.parquet")


def computed(training, tower=None, **changes) -> ComputedFeatures:
    """Features of three epochs, so many that plain images pay to be computed once."""
    train = AdapterTrainingConfig(**{"epochs": 3, "batch_size": 4, "strong_weight": 0.7, **changes})
    return computed_features(tower or backbone(OpenClipStudentConfig()), training, SewConfig(), train, "cpu", 0)


class FakeGroup(ProcessGroup):
    """The first of two processes; the second one is `other`, whose answers stand in for those that would be sent."""

    def __init__(self, other: list[torch.Tensor]) -> None:
        super().__init__(0, 2)
        self.other, self.asked = other, []

    def broadcast(self, numbers):
        self.asked.append(numbers)
        return numbers

    def gather(self, rows, total):
        both = torch.stack([rows, self.other.pop(0)], dim=1)
        return both.flatten(0, 1)[:total]


class Worker(ProcessGroup):
    """The second of two processes: it is asked what `asked` says, and what it sends is kept."""

    def __init__(self, asked: list[list[int]]) -> None:
        super().__init__(1, 2)
        self.asked, self.sent = asked, []

    def broadcast(self, numbers):
        received = self.asked.pop(0)
        assert len(received) == len(numbers)  # torch.distributed hangs or fails otherwise
        return received

    def gather(self, rows, total):
        self.sent.append(torch.cat([rows, rows.new_zeros(-(-total // 2) - len(rows), *rows.shape[1:])]))


class Recorded:
    """A source that counts what it is asked for."""

    def __init__(self, inner) -> None:
        self.inner, self.steps, self.plains = inner, [], 0

    def batches(self, steps):
        for step, batch in zip(steps, self.inner.batches(steps), strict=True):
            self.steps.append(step)
            yield batch

    def plain(self):
        self.plains += 1
        return self.inner.plain()


def assert_equal(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert one.weak.is_contiguous() and one.strong.is_contiguous()


def test_computed_features_are_those_of_the_sewn_images(training):
    source = computed(training)
    (batch,) = source.batches([4])
    assert batch.weak.shape == batch.strong.shape == (4, *CELL)
    for row, key in enumerate(next(source.sampler.batches([4]))):
        sample = source.dataset[key]
        assert batch.sources[row].tolist() == sample.sources.tolist()
        assert torch.equal(batch.strong[row], source.backbone(sample.strong[None])[0])
        expected = torch.zeros(CELL) if sample.weak is None else source.backbone(sample.weak[None])[0]
        assert torch.equal(batch.weak[row], expected)
        assert bool(batch.has_weak[row]) == (sample.weak is not None) == (len(set(sample.sources.tolist())) > 1)


def test_a_batch_on_its_own_is_the_batch_among_others(training):
    source = computed(training)
    assert_equal((source.batch(step) for step in STEPS), source.batches(STEPS))


@pytest.mark.parametrize(("view", "bad"), [("weak", 0), ("strong", 1)])
def test_features_that_are_not_finite_are_refused_by_image_and_view(training, view, bad):
    tower = backbone(OpenClipStudentConfig())
    forward, calls = tower.forward, []

    def broken(pixels):
        features = forward(pixels)
        if len(calls) == bad:
            features[-1, 0, 0, 0] = torch.inf
        calls.append(len(pixels))
        return features

    tower.forward = broken
    source = computed(training, tower, epochs=1)
    index = next(source.sampler.batches([0]))[-1][1]
    with pytest.raises(UserError) as caught:
        next(source.batches([0]))
    assert str(caught.value).startswith(f"{training.paths[index]}: the backbone's answer to its {view} view")


def test_plain_features_that_are_not_finite_are_refused(training):
    tower = backbone(OpenClipStudentConfig())
    forward = tower.forward
    tower.forward = lambda pixels: forward(pixels).index_fill_(0, torch.tensor([2]), torch.nan)
    with pytest.raises(UserError, match="is not finite") as caught:
        computed(training, tower).plain()
    assert str(caught.value).startswith(training.paths[2])


def test_plain_features_are_filled_in_and_computed_once(training):
    inner = Recorded(computed(training))
    source = PlainFeatures(inner)
    with_all = computed(training)
    with_all.dataset.skip_plain = False
    assert_equal(list(source.batches(STEPS[:4])) + list(source.batches(STEPS[4:])), with_all.batches(STEPS))
    assert inner.plains == 1
    assert list(PlainFeatures(inner).batches(range(0))) == [] and inner.plains == 1


def cache_of(folder) -> FeatureCache:
    return FeatureCache(folder / "a.zarr", {}, Sizes(3, TRAIN, CELL, strong=True, plain=True))


def test_cached_features_ask_for_what_is_missing(training, tmp_path):
    local = computed(training)
    inner = Recorded(local)
    assert_equal(CachedFeatures(inner, cache_of(tmp_path), local).batches(STEPS[:6]), local.batches(STEPS[:6]))
    assert inner.steps == [0, 1, 2, 3, 4, 5]
    assert_equal(CachedFeatures(inner, cache_of(tmp_path), local).batches(STEPS), local.batches(STEPS))
    assert inner.steps == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    for _ in range(2):
        assert torch.equal(CachedFeatures(inner, cache_of(tmp_path), local).plain(), local.plain())
    assert inner.plains == 1


def test_a_chunk_that_is_damaged_is_recomputed_here(training, tmp_path):
    local = computed(training)
    list(CachedFeatures(local, cache_of(tmp_path), local).batches(STEPS))
    chunk = next(tmp_path.rglob("weak/c/1/0/0/0/0"))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-3])
    inner = Recorded(local)
    assert_equal(CachedFeatures(inner, cache_of(tmp_path), local).batches(STEPS), local.batches(STEPS))
    assert inner.steps == [] and chunk.read_bytes() == whole


def sent_by_a_worker(training, asked):
    worker = Worker([*asked, [STOP, 0]])
    run_feature_worker(computed(training), worker)
    assert worker.asked == []
    return worker.sent


def test_distributed_features_are_whole(training):
    steps = [0, 2, 3, 8]
    requested = [[PLAIN, 0], [BATCHES, 4], steps]
    group = FakeGroup(sent_by_a_worker(training, requested))
    local = computed(training)
    source = DistributedFeatures(replace(local, group=group), group)
    assert torch.equal(source.plain(), local.plain())
    assert_equal(source.batches(steps), local.batches(steps))
    source.close()
    assert group.asked == [*requested, [STOP, 0]] and group.other == []


def test_what_was_asked_for_and_not_used_is_taken_before_the_end(training):
    """The workers wait until their shards are taken; `close` must not leave them waiting."""
    group = FakeGroup(sent_by_a_worker(training, [[BATCHES, 3], [0, 1, 2]]))
    source = DistributedFeatures(replace(computed(training), group=group), group)
    next(source.batches([0, 1, 2]))
    source.close()
    assert group.other == []


def test_no_steps_ask_the_others_nothing(training):
    group = FakeGroup([])
    assert list(DistributedFeatures(replace(computed(training), group=group), group).batches([])) == []
    assert group.asked == []


def test_the_chain_has_the_links_that_are_needed(training, tmp_path):
    few, many = computed(training, epochs=1), computed(training)
    with feature_source(few, SINGLE, None) as source:
        assert source is few
    with feature_source(many, SINGLE, None) as source:
        assert isinstance(source, PlainFeatures) and source._inner is many
    group = FakeGroup([])
    with feature_source(many, group, cache_of(tmp_path)) as source:
        cached = source._inner
        assert isinstance(cached, CachedFeatures) and isinstance(cached._inner, DistributedFeatures)
        assert cached._local.group is SINGLE and cached._inner._shards.group is group
    assert group.asked == [[STOP, 0]]


def test_an_error_does_not_wait_for_the_others(training):
    group = FakeGroup([])
    with pytest.raises(UserError, match="diverges"), feature_source(computed(training), group, None):
        raise UserError("diverges")
    assert group.asked == []


def test_every_chain_gives_the_same_batches(training, tmp_path):
    local = computed(training)
    with feature_source(local, SINGLE, None) as source:
        expected = list(source.batches(STEPS))
    assert all(bool(batch.has_weak.all()) for batch in expected)
    group = FakeGroup(sent_by_a_worker(training, [[PLAIN, 0], [BATCHES, 9], list(STEPS)]))
    with feature_source(local, group, cache_of(tmp_path)) as source:
        assert_equal(source.batches(STEPS), expected)
    with feature_source(local, SINGLE, cache_of(tmp_path)) as source:
        assert_equal(source.batches(STEPS), expected)
    assert isinstance(expected[0], FeatureBatch) and bool(torch.isfinite(expected[0].weak).all())

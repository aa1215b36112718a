"""Out of GPU memory: the batch is halved and the job continues."""

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutsew.errors import UserError, in_one_line
from cutsew.runtime.batching import OOMBatchSplitter


class Device:
    """A model on a device that holds so many rows."""

    def __init__(self, holds):
        self.holds, self.calls = holds, []

    def __call__(self, rows):
        self.calls.append(len(rows))
        if len(rows) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rows * 2


def test_a_batch_is_halved_until_it_fits_and_stays_small(caplog):
    halving, device = OOMBatchSplitter(), Device(3)
    rows = torch.arange(16.0)
    assert torch.equal(halving(device, rows), rows * 2)
    assert device.calls == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert "4 views do not fit into the GPU's memory; retrying with 2 at a time" in caplog.text
    device.calls.clear()
    assert torch.equal(halving(device, rows[:5]), rows[:5] * 2)
    assert device.calls == [2, 2, 1]


@given(st.integers(0, 40), st.integers(1, 50))
def test_nothing_is_lost(count, holds):
    rows = torch.arange(float(count)).reshape(count, 1)
    assert torch.equal(OOMBatchSplitter()(Device(holds), rows), rows * 2)


def test_what_never_fits_ends_in_one_line():
    with pytest.raises(UserError, match=r"^compute\.batch_size: the GPU's memory does not hold one view"):
        OOMBatchSplitter()(Device(0), torch.zeros(4))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_cublas_cudnn_and_the_driver_run_out_of_memory_too(words):
    class Full(Device):
        def __call__(self, rows):
            if len(rows) > self.holds:
                raise RuntimeError(words)
            return rows * 2

    rows = torch.arange(5.0)
    assert torch.equal(OOMBatchSplitter()(Full(2), rows), rows * 2)
    assert in_one_line(RuntimeError(words)).startswith("the GPU's memory does not suffice; set compute.batch_size")


def test_the_failed_call_is_freed_before_the_cache_is_emptied(monkeypatch):
    alive, seen = [], []

    def function(rows):
        held = rows * 2
        if len(rows) > 2:
            alive.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return held

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(alive[-1]() is None))
    assert torch.equal(OOMBatchSplitter()(function, torch.arange(4.0)), torch.arange(4.0) * 2)
    assert seen == [True]


def test_other_errors_pass():
    def broken(rows):
        raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        OOMBatchSplitter()(broken, torch.zeros(4))

"""What an Apple GPU needs, as far as it shows without one: it has no float64, no bfloat16 here, and no CUDA events."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cutsew.config.schema import ComputeConfig
from cutsew.config.training import LinearTrainingConfig
from cutsew.errors import UserError, out_of_gpu_memory
from cutsew.inference.classifier import OnnxStudent
from cutsew.method import em
from cutsew.pipeline.rule_resources import visible_gpus
from cutsew.runtime import batching
from cutsew.runtime.device import device_facts, pick_device, with_precision
from cutsew.training import linear
from cutsew.training.computed_features import FeatureBatch


class NoDouble(TorchDispatchMode):
    """Fails where MPS does: on a tensor of float64 that an operator returns."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        wide = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64]
        if any(leaf.dim() for leaf in wide):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return out


@pytest.fixture
def apple(monkeypatch):
    """Let torch have an Apple GPU, whose tensors are the CPU's."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for module in (em, linear):
        monkeypatch.setattr(module, "widest_float", lambda _: torch.float32)


def test_mps_is_taken_where_torch_has_it_and_only_on_request(apple, monkeypatch):
    assert pick_device("mps") == "mps" and pick_device("auto") == "cpu"
    assert visible_gpus("mps") == 1  # one job at a time
    assert device_facts("mps")["device"] == "mps" and device_facts("mps")["gpu"].startswith("Apple")


def test_mps_is_refused_without_one():
    with pytest.raises(UserError, match="compute.device: mps needs an Apple GPU"):
        pick_device("mps")


def test_the_widest_float_of_each_device():
    assert em.widest_float(torch.device("mps")) == torch.float32
    assert em.widest_float(torch.device("cuda")) == em.widest_float(torch.device("cpu")) == torch.float64


def test_the_label_table_needs_no_float64(apple, monkeypatch):
    def steps():
        draw = torch.Generator().manual_seed(1)
        table = em.LabelTable(torch.randn(6, 3, generator=draw), [0.1] * 8, 0.01)
        for step in range(8):
            index = torch.tensor([step % 6, (step + 3) % 6])
            table.rows(index)
            table.step(index, torch.randn(2, 3, generator=draw))
        return table

    narrow = steps()
    assert narrow._by_step.dtype == narrow._faded.dtype == torch.float32
    with NoDouble():
        here = narrow.materialize()
        narrow.rows(torch.arange(6))
    monkeypatch.setattr(em, "widest_float", lambda _: torch.float64)
    wide = steps()
    torch.testing.assert_close(here, wide.materialize(), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="float64"), NoDouble():
        wide.materialize()


def test_the_linear_head_needs_no_float64(apple):
    draw = torch.Generator().manual_seed(2)
    cells = torch.randn(5, 4, 2, 2, generator=draw)
    batch = FeatureBatch(torch.zeros(5, 2, dtype=torch.int64), torch.ones(5, dtype=torch.bool), cells, None)
    with NoDouble():
        mean, std = linear._channel_statistics([batch])
        z = torch.randn(5, 3, generator=draw)
        linear._Fit(z, linear._prior(z), 4, [1e-3], LinearTrainingConfig(steps=2), 1)
    np.testing.assert_allclose(mean, cells.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, cells.permute(1, 0, 2, 3).flatten(1).std(dim=1, correction=0), rtol=1e-5)


def test_an_encoder_computes_in_float32(apple):
    double = with_precision(lambda x: 2 * x, "tf32", "mps", compiled=False, setting="teacher")
    assert double(torch.ones(2)).dtype == torch.float32
    for precision in ("float16", "bfloat16"):
        with pytest.raises(UserError, match=rf"teacher.precision: {precision} is not supported on an Apple GPU"):
            with_precision(lambda x: x, precision, "mps", compiled=False, setting="teacher")


def test_batches_are_not_queued_with_cuda_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", lambda: pytest.fail("an event of CUDA"))
    batches = [(i, torch.full((2,), float(i))) for i in range(3)]
    assert [key for key, _ in batching.run_ahead(lambda x: x + 1, batches, "mps")] == [0, 1, 2]


def test_memory_of_an_apple_gpu_runs_out():
    assert out_of_gpu_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))


def test_what_an_apple_gpu_cannot_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train_processes needs one GPU for each process"):
        ComputeConfig(device="mps", train_processes=2)
    (tmp_path / "student.onnx").touch()
    with pytest.raises(UserError, match="ONNX files run on cpu and cuda"):
        OnnxStudent(tmp_path / "student.onnx", "mps")

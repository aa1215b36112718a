import pytest
import torch
from torch import nn

from cutsew.runtime.batching import MICROBATCH_SIZE, run_batch_invariant, worker_pool


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3, stride=2), nn.ReLU(), nn.Conv2d(24, 40, 3), nn.Flatten(), nn.Linear(40 * 25, 7)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 32])
def test_an_image_is_alone(model, batch):
    """Equal to the last bit whatever stands next to an image in its batch."""
    images = torch.randn(2 * MICROBATCH_SIZE + 3, 3, 15, 15)
    whole = run_batch_invariant(model, images, "cpu")
    parts = torch.cat([run_batch_invariant(model, part, "cpu") for part in images.split(batch)])
    order = torch.randperm(len(images))
    assert torch.equal(whole, parts)
    assert torch.equal(whole[order], run_batch_invariant(model, images[order], "cpu"))
    torch.testing.assert_close(whole, model(images).detach())


def test_number_of_threads_does_not_matter(model):
    images = torch.randn(9, 3, 15, 15)
    result = []
    for count in (1, 2, 3):
        worker_pool.cache_clear()
        torch.set_num_threads(count)
        result.append(run_batch_invariant(model, images, "cpu"))
        assert torch.get_num_threads() == 1  # the others are steadily's own
    assert torch.equal(result[0], result[1])
    assert torch.equal(result[0], result[2])


def test_no_image(model):
    assert run_batch_invariant(model, torch.zeros(0, 3, 15, 15), "cpu").shape == (0, 7)


def test_no_gradient(model):
    assert not run_batch_invariant(model, torch.randn(2, 3, 15, 15), "cpu").requires_grad


def test_errors_pass_through(model):
    with pytest.raises(RuntimeError):
        run_batch_invariant(model, torch.randn(2, 5, 15, 15), "cpu")

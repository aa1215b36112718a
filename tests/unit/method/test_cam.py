"""Class activation maps, by hand and by what must not change them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cutsew.method.cam import ActivationHook, grad_cam, hires_cam, to_unit

FEATURES = torch.tensor([[[[1.0, 2.0], [0.0, 4.0]], [[1.0, 0.0], [3.0, 0.0]]]])
GRADIENTS = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])


def test_grad_cam_by_hand():
    # Mean gradients 1 and -1: 1 - 1, 2 - 0, 0 - 3, 4 - 0.
    assert torch.equal(grad_cam(FEATURES, GRADIENTS), torch.tensor([[[0.0, 0.5], [0.0, 1.0]]]))


def test_hires_cam_by_hand():
    # 4 - 1, 0 - 0, 0 - 3, 0 - 0: the gradient of one place says nothing of another.
    assert torch.equal(hires_cam(FEATURES, GRADIENTS), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))


def test_a_map_without_a_positive_value_is_empty():
    assert torch.equal(to_unit(-torch.ones(1, 2, 2)), torch.zeros(1, 2, 2))


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.floats(0.01, 100), st.sampled_from([0, 1]))
def test_maps_stand_whatever_the_scale_the_order_and_the_neighbors(seed, side, channels, factor, which):
    make = (grad_cam, hires_cam)[which]
    features, gradients = torch.randn(2, 3, channels, side, side, generator=torch.manual_seed(seed))
    maps = make(features, gradients)
    assert maps.shape == (3, side, side) and maps.min() >= 0
    assert all(peak in (0, 1) for peak in maps.amax(dim=(1, 2)).tolist())
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(make(features, gradients * factor), maps, **close)
    torch.testing.assert_close(make(features.flip(1), gradients.flip(1)), maps, **close)
    torch.testing.assert_close(make(features[1:2], gradients[1:2]), maps[1:2], **close)
    torch.testing.assert_close(make(features.flip(3), gradients.flip(3)), maps.flip(2), **close)


class Linear(nn.Module):
    """Features are the pixels times 2; the score of class c weighs their mean over the places with row c."""

    def __init__(self):
        super().__init__()
        self.grid = nn.Conv2d(2, 2, 1, bias=False)
        self.grid.weight.data = 2 * torch.eye(2)[..., None, None]
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, -1.0], [-3.0, 5.0]])
        self.requires_grad_(False)

    def forward(self, images):
        return self.head(self.grid(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(("entering", "factor"), [(False, 1), (True, 2)])
def test_gradients_of_a_linear_model_by_hand(entering, factor):
    model, images = Linear(), torch.rand(2, 2, 2, 2)
    with ActivationHook(model.grid, entering=entering) as tap:
        features, gradients = tap.gradients(lambda: model(images)[torch.arange(2), torch.tensor([0, 1])])
    assert torch.equal(features, images if entering else 2 * images)
    weights = torch.tensor([[1.0, -1.0], [-3.0, 5.0]]) / 4 * factor
    assert torch.equal(gradients, weights[..., None, None].expand(2, 2, 2, 2))
    assert not features.requires_grad and not gradients.requires_grad


def test_class_activation_is_that_of_the_linear_head():
    """With pooling and a linear head Grad-CAM is CAM itself: the head's row times the features (Zhou et al., 2016)."""
    model, images = Linear(), torch.rand(5, 2, 3, 3)
    with ActivationHook(model.grid) as tap:
        maps = grad_cam(*tap.gradients(lambda: model(images)[:, 1]))
    torch.testing.assert_close(maps, to_unit((2 * images * model.head.weight[1, :, None, None]).sum(1)))


def test_threads_do_not_take_each_others_features():
    model, images = Linear(), torch.rand(64, 2, 8, 8)
    with ActivationHook(model.grid) as tap, ThreadPoolExecutor(4) as pool:
        result = list(pool.map(lambda one: tap.gradients(lambda: model(one)[:, 0])[0], images.split(1)))
    assert torch.equal(torch.cat(result), 2 * images)


def test_the_layer_is_left_as_it_was_even_after_an_error():
    model = Linear()
    with pytest.raises(RuntimeError), ActivationHook(model.grid) as tap:
        tap.gradients(lambda: model(torch.rand(1, 3, 2, 2)))
    assert not model.grid._forward_hooks
    assert not model(torch.rand(1, 2, 2, 2)).requires_grad

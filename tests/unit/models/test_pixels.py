"""From 8-bit pixels to a model's input."""

import pytest
import torch

from cutsew.models.image_encoder import Normalize

MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)


def test_by_hand():
    (normal,) = Normalize((0.5, 0.2, 0.0), (0.5, 0.1, 1.0))(
        torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    )
    assert normal.flatten().tolist() == pytest.approx([-1, 0, 1], abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 7, 5), (1, 3, 1, 1), (2, 3, 1, 9)])
def test_the_layout_of_the_batch_changes_no_bit(shape):
    plain = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(0))
    pixels = Normalize(MEAN, STD)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (MEAN, STD))
    for images in (plain, plain.contiguous(memory_format=torch.channels_last), plain.flip(3), plain[:, :, :, 1:]):
        normal = pixels(images)
        assert torch.equal(normal, (images.float() - mean) / std)
        assert normal.is_contiguous(memory_format=torch.channels_last)

"""What is no number in a model's answer stops the job, and the image and the view are named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cutsew.errors import UserError, printable
from cutsew.inference.classifier import Classifier
from cutsew.inference.new_images import PredictOptions, predict
from cutsew.method.crops import Square
from cutsew.runtime.batching import require_finite
from cutsew.storage.result_tables import plain


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_row_is_named(value):
    values = np.zeros((4, 2, 2), np.float32)
    require_finite(values, ["a", "b", "c", "d"], "the answer")
    values[2:, 1, 0] = value
    with pytest.raises(UserError, match=r"^c: the answer is not finite; check the model's weights"):
        require_finite(values, ["a", "b", "c", "d"], "the answer")


def test_new_images(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    answers = iter([torch.zeros(1, 2), torch.full((1, 2), torch.nan)])
    student = Classifier(lambda _: next(answers), ["cat", "dog"], Square(8, "bicubic"), plain(2))
    with pytest.raises(UserError, match=r"^b\.png: the model's output is not finite"):
        predict(tmp_path, student, tmp_path / "out.csv", PredictOptions(batch_size=1))
    assert not (tmp_path / "out.csv").exists()


def test_a_message_is_one_line_by_hand():
    assert printable("a\nb\x1b[31m\udcff") == r"a\nb\x1b[31m\udcff"
    assert str(UserError("images/new\nline.jpg: damaged")) == r"images/new\nline.jpg: damaged"


@given(st.text(st.characters(exclude_categories=())))
def test_a_message_is_always_one_line(text):
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cutsew.demo import tiny_clip
from cutsew.demo.scenes import CLASSES, SPOKEN, all_captions, caption, scene
from cutsew.demo.world import CAPTIONED_OTHERS, SIDE, example, examples
from cutsew.errors import UserError
from cutsew.method.random import keyed_rng, torch_seed
from cutsew.stages.tiny_clip import tiny_clip as stage


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    return tiny_clip.build(None)


@pytest.fixture(scope="module")
def packed(fresh, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "weights.safetensors"
    tiny_clip.pack(fresh, path)
    return path


def test_captions_name_one_or_two_classes_in_spoken_words():
    assert caption(["dog"]) == "a photo of a dog"
    assert caption(["dog", "diningtable"]) == "a photo of a dog and a dining table"
    assert set(SPOKEN) < set(CLASSES)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=2))
def test_every_caption_uses_only_packed_tokens(names):
    kept = set(tiny_clip.tokens(all_captions()).unique().tolist())
    assert set(tiny_clip.tokens([caption(names)]).unique().tolist()) <= kept


def test_no_caption_is_cut_short():
    ends = tiny_clip.tokens(all_captions())
    assert ends.shape == (20, 16)
    assert bool((ends[:, -1] == 0).all())  # padding: the end token stands before


def test_examples_are_the_scenes_squashed_with_the_main_object_named():
    named = [0, 0]
    for index in range(12):
        pixels, text = example(index, 5)
        assert pixels.shape == (SIDE, SIDE, 3) and pixels.dtype == np.uint8
        _, things = scene(keyed_rng("tiny_clip", 5, index), CAPTIONED_OTHERS)
        assert text in (caption([things[0].name]), caption([thing.name for thing in things[:2]]))
        named[" and " in text] += 1
    assert named[0] > named[1]


def test_examples_do_not_depend_on_workers():
    one, two = (list(examples(3, seed=1, workers=workers)) for workers in (1, 2))
    assert [text for _, text in one] == [text for _, text in two]
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, two, strict=True))


def test_round_trip_gives_the_half_precision_weights_back(fresh, packed):
    before, after = fresh.state_dict(), tiny_clip.state_dict(packed)
    assert set(before) == set(after)
    rows = tiny_clip.tokens(all_captions()).unique()
    for name, value in before.items():
        assert after[name].shape == value.shape and after[name].dtype == value.dtype
        kept = rows if name == "token_embedding.weight" else slice(None)
        whole = not value.is_floating_point() or value.ndim == 0
        assert torch.equal(after[name], value) if whole else torch.equal(after[name][kept], value[kept].half().float())


def test_rows_of_unused_tokens_are_zero(packed):
    embedding = tiny_clip.state_dict(packed)["token_embedding.weight"]
    used = torch.zeros(len(embedding), dtype=torch.bool)
    used[tiny_clip.tokens(all_captions()).unique()] = True
    assert bool((embedding[~used] == 0).all())
    assert bool((embedding[used] != 0).any(dim=1).all())


def test_packing_what_was_expanded_gives_the_same_file(packed, tmp_path):
    tiny_clip.pack(tiny_clip.build(packed), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == packed.read_bytes()


def test_a_model_answers_nearly_the_same_after_packing(fresh, packed):
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = fresh(pixels, tiny_clip.tokens([caption(["dog"])]))
        after = tiny_clip.build(packed)(pixels, tiny_clip.tokens([caption(["dog"])]))
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, atol=5e-3)


def test_bad_weights_are_named(tmp_path):
    missing, text, other = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors"))
    text.write_text("no weights")
    save_file({"x": torch.zeros(1)}, other)
    for path in (missing, text, other):
        with pytest.raises(UserError, match=rf"{path.name}.*cutsew tiny_clip"):
            tiny_clip.state_dict(path)


def test_shipped_weights_are_small_and_load_strictly():
    assert tiny_clip.SHIPPED.stat().st_size <= 5_000_000
    model = tiny_clip.build()
    missing, unexpected = model.load_state_dict(tiny_clip.state_dict(), strict=True)
    assert not missing and not unexpected and not model.training
    assert {value.dtype for value in load_file(tiny_clip.SHIPPED).values()} >= {torch.float16, torch.int32}


def test_shipped_weights_name_the_main_object():
    model = tiny_clip.build()
    image_rows, truths = zip(*((example(index, 991)) for index in range(30)), strict=True)
    pixels = torch.from_numpy(np.stack(image_rows)).permute(0, 3, 1, 2)
    with torch.no_grad():
        images = model.encode_image(tiny_clip.normalize_images(pixels), normalize=True)
        texts = model.encode_text(tiny_clip.tokens([caption([name]) for name in CLASSES]), normalize=True)
    named = [caption([CLASSES[index]]) for index in (images @ texts.T).argmax(dim=1)]
    right = [truth.startswith(text) for text, truth in zip(named, truths, strict=True)]
    assert np.mean(right) >= 0.85


def test_contrastive_loss_by_hand():
    scale = torch.tensor(2.0)
    eye = torch.eye(2)
    # The logits are [[2, 0], [0, 2]]: each cross-entropy is log(1 + exp(-2)).
    assert tiny_clip.contrastive(eye, eye, scale).item() == pytest.approx(np.log1p(np.exp(-2)))
    # Texts swapped: [[0, 2], [2, 0]], so log(1 + exp(2)).
    assert tiny_clip.contrastive(eye, eye.flip(0), scale).item() == pytest.approx(np.log1p(np.exp(2)))


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_contrastive_loss_is_symmetric_and_ignores_order(size, seed):
    source = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, size, 4, generator=source)
    scale, order = torch.tensor(1.5), torch.randperm(size, generator=source)
    loss = tiny_clip.contrastive(images, texts, scale)
    assert loss.item() == pytest.approx(tiny_clip.contrastive(texts, images, scale).item(), rel=1e-5)
    assert loss.item() == pytest.approx(tiny_clip.contrastive(images[order], texts[order], scale).item(), rel=1e-5)


def test_rate_rises_then_falls():
    assert tiny_clip.rate(0, 600) == pytest.approx(1 / 60)
    assert tiny_clip.rate(59, 600) == pytest.approx(1.0)
    assert tiny_clip.rate(330, 600) == pytest.approx(0.5)
    assert tiny_clip.rate(600, 600) == pytest.approx(0.0)


def test_batches_pass_over_all_scenes_before_any_comes_again():
    chunks = [chunk.tolist() for chunk in tiny_clip.batches(images=300, steps=5, seed=0)]
    assert [len(chunk) for chunk in chunks] == [128] * 5
    assert len(set(chunks[0] + chunks[1])) == 256 and len(set(chunks[2] + chunks[3])) == 256
    assert chunks[0] != chunks[2]


def test_stage_gives_the_same_file_twice_and_learns(tmp_path):
    for name in ("one", "two"):
        stage(tmp_path / f"{name}.safetensors", steps=2, images=8, seed=0, workers=1)
    one, two = (tmp_path.joinpath(f"{name}.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    record = json.loads(tmp_path.joinpath("one.safetensors.json").read_text())
    assert record["stage"] == "tiny_clip" and record["facts"]["steps"] == 2
    torch.manual_seed(torch_seed("tiny_clip", "weights", 0))
    before = tiny_clip.build(None).state_dict()["visual.conv1.weight"]
    after = tiny_clip.state_dict(tmp_path / "one.safetensors")["visual.conv1.weight"]
    assert not torch.allclose(before, after, atol=1e-4)

import math
import shutil

import numpy as np
import pytest
import torch
from tiny_models import SIZE, checkpoint, register

from cutsew.config.networks import OpenClipTeacherConfig, OpenClipTeacherModelConfig
from cutsew.errors import UserError
from cutsew.method.score import score
from cutsew.models import clip as clip_models
from cutsew.models import teachers
from cutsew.models.checkpoints import weights_digest
from cutsew.models.clip import resize_position_embedding
from cutsew.models.preprocessing import OPENAI_SIZES
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import open_clip  # noqa: E402
from PIL import Image  # noqa: E402


def named(model, pretrained, image_size=None):
    return OpenClipTeacherModelConfig(model=model, pretrained=str(pretrained), image_size=image_size)


def build(model, pretrained, image_size=None):
    return teachers.build(OpenClipTeacherConfig(open_clip=named(model, pretrained, image_size)), "cpu")


def views(count, size, seed=0):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("name", ["test-resnet", "test-vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_embeddings_are_open_clips_own(tmp_path, name, suffix):
    path, model = checkpoint(tmp_path, name, suffix)
    teacher = build(name, path)
    size = teacher.image_size
    images = views(5, size)
    preprocess = open_clip.image_transform(size, is_train=False)
    inputs = torch.stack([preprocess(Image.fromarray(np.moveaxis(image.numpy(), 0, 2))) for image in images])
    with torch.no_grad():
        expected = model.encode_image(inputs, normalize=True)
        expected_texts = model.encode_text(open_clip.get_tokenizer(name)(["a cat", "a dog"]), normalize=True)
    torch.testing.assert_close(teacher.embed_images(images), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(teacher.embed_texts(["a cat", "a dog"]), expected_texts, atol=2e-6, rtol=0)
    assert (teacher.width, size) == (24, SIZE[name])
    assert teacher.logit_scale == pytest.approx(1 / 0.07)
    assert len(teacher.weights_digest) == 64


@pytest.mark.parametrize("name", ["test-resnet", "test-vit"])
def test_rows_do_not_depend_on_the_batch(tmp_path, name):
    path, _ = checkpoint(tmp_path, name)
    teacher = build(name, path)
    images = views(9, teacher.image_size)
    whole = teacher.embed_images(images)
    assert torch.equal(whole, torch.cat([teacher.embed_images(images[i : i + 1]) for i in range(9)]))
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize(
    ("name", "key", "grid"),
    [("test-resnet", "attnpool.positional_embedding", 4), ("test-vit", "positional_embedding", 4)],
)
def test_double_image_size_keeps_the_first_row(tmp_path, name, key, grid):
    path, model = checkpoint(tmp_path, name)
    size = 2 * SIZE[name]
    clip = clip_models.load_clip(named(name, path, size), "teacher.open_clip")
    before, after = model.visual.get_parameter(key), clip.model.visual.get_parameter(key)
    assert before.shape[0] == 1 + (grid // 2) ** 2
    assert after.shape[0] == 1 + grid**2
    assert torch.equal(before[0], after[0])
    assert torch.equal(after, resize_position_embedding(before, (grid, grid)))
    teacher = build(name, path, size)
    assert teacher.image_size == size
    assert teacher.embed_images(views(2, size)).shape == (2, 24)


def test_vit_is_resized_as_open_clip_does(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    ours = clip_models.load_clip(named("test-vit", path, 80), "teacher.open_clip").model.visual.positional_embedding
    theirs = open_clip.create_model("test-vit", pretrained=str(path), force_image_size=80).visual.positional_embedding
    torch.testing.assert_close(ours, theirs)


def test_building_leaves_random_state_alone(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    build("test-vit", path)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore")
def test_an_archive_as_openais_is_a_teacher(tmp_path):
    """TorchScript of a whole CLIP, which also holds the text tower's mask, as OpenAI published theirs."""
    path, model = checkpoint(tmp_path, "test-vit")
    inputs = {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": torch.zeros(1, 8, dtype=torch.long)}
    torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False), tmp_path / "jit.pt")
    assert build("test-vit", tmp_path / "jit.pt").weights_digest == build("test-vit", path).weights_digest
    state = model.state_dict() | {name: torch.tensor(1) for name in OPENAI_SIZES}
    torch.save(state, tmp_path / "sizes.pt")
    (tmp_path / "open_clip_config.json").unlink()
    clip = clip_models.load_clip(named("test-vit", tmp_path / "sizes.pt"), "teacher.open_clip")
    assert clip.quick_gelu and clip.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    assert weights_digest(clip.model) == weights_digest(model)


def test_tag_that_cannot_be_downloaded(monkeypatch):
    def fail(tag):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(clip_models, "download_pretrained", fail)
    with pytest.raises(
        UserError,
        match=r"^teacher\.open_clip\.pretrained: openai of RN50 .*a local file; teacher\.kind: conse and "
        r"student\.kind: timm, as in config/offline\.yaml, need no model hub",
    ) as error:
        build("RN50", "openai")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "pretrained", "expected"),
    [
        ("no-such-model", "openai", r"^teacher\.open_clip\.model: open_clip has no model no-such-model"),
        ("RN50", "no_such_tag", r"^teacher\.open_clip\.pretrained: RN50 has no weights no_such_tag \(it has: openai"),
        ("test-vit", "none.pt", r"^teacher\.open_clip\.pretrained: none\.pt: no such file"),
    ],
)
def test_wrong_names(tmp_path, model, pretrained, expected):
    register(tmp_path)
    with pytest.raises(UserError, match=expected):
        build(model, pretrained)


def test_checkpoint_of_another_model(tmp_path):
    path, model = checkpoint(tmp_path, "test-vit")
    state = model.state_dict()
    for name, shape in (
        ("positional_embedding", (8, 99)),
        ("logit_scale", (2,)),
        ("visual.positional_embedding", (10, 7)),
    ):
        torch.save(state | {name: torch.ones(shape)}, tmp_path / "other.pt")
        with pytest.raises(UserError, match=r"other\.pt of test-vit: not the weights of this model") as error:
            build("test-vit", tmp_path / "other.pt")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="not the weights of this model"):
        build("test-resnet", path)


def test_logit_scale_is_the_models(tmp_path):
    path, model = checkpoint(tmp_path, "test-vit", ".pt")
    state = model.state_dict()
    state["logit_scale"] = torch.tensor([math.log(100.0)])
    torch.save(state, path)
    assert build("test-vit", path).logit_scale == pytest.approx(100, rel=1e-6)


def test_tiny_clip_shipped_and_rebuilt(tmp_path):
    """The demo's model by its tag and by the path of packed weights, at twice its size too."""
    tiny_clip = pytest.importorskip("cutsew.demo.tiny_clip")
    shipped = build("cutsew-tiny", "demo")
    rebuilt = build("cutsew-tiny", shutil.copy(tiny_clip.SHIPPED, tmp_path / "rebuilt.safetensors"))
    assert rebuilt.weights_digest == shipped.weights_digest
    assert torch.equal(rebuilt.embed_texts(["a photo of a dog"]), shipped.embed_texts(["a photo of a dog"]))
    assert (shipped.image_size, build("cutsew-tiny", "demo", 192).image_size) == (96, 192)
    with pytest.raises(UserError, match=r"^teacher\.open_clip\.pretrained: none: no such file"):
        build("cutsew-tiny", "none")


def test_only_a_model_trained_with_a_sigmoid_has_a_bias(tmp_path):
    path, model = checkpoint(tmp_path, "test-sigmoid", ".pt")
    state = model.state_dict()
    state["logit_bias"] = torch.tensor([-7.5])  # of another shape than the model's, as some checkpoints have it
    torch.save(state, path)
    assert build("test-sigmoid", path).logit_bias == -7.5
    del state["logit_bias"]
    torch.save(state, path)
    assert build("test-sigmoid", path).logit_bias is None  # never 0, which open_clip fills in for training
    assert build("test-vit", checkpoint(tmp_path, "test-vit")[0]).logit_bias is None


def test_sigmoid_logits_are_open_clips_own(tmp_path):
    path, model = checkpoint(tmp_path, "test-sigmoid", ".pt")
    model.logit_bias.data.fill_(-7.5)
    torch.save(model.state_dict(), path)
    teacher, images, texts = build("test-sigmoid", path), views(5, 32), ["a cat", "a dog", "a bus"]
    preprocess = open_clip.image_transform(32, is_train=False)
    inputs = torch.stack([preprocess(Image.fromarray(np.moveaxis(image.numpy(), 0, 2))) for image in images])
    with torch.no_grad():
        expected, _ = model.get_logits(inputs, open_clip.get_tokenizer("test-sigmoid")(texts))
    embedded = teacher.embed_images(images).numpy(), teacher.embed_texts(texts).numpy()
    z = score(*embedded, teacher.logit_scale, 1e-6, bias=teacher.logit_bias)
    np.testing.assert_allclose(z, expected.numpy(), atol=1e-5, rtol=0)
    assert z.min() < -7.5 < z.max()


def test_the_demos_sigmoid_teacher_has_the_tiny_clips_towers():
    tiny, teacher = build("cutsew-tiny", "demo"), build("cutsew-tiny-sigmoid", "demo")
    images = views(2, 96)
    assert torch.equal(tiny.embed_images(images), teacher.embed_images(images))
    assert teacher.logit_scale == pytest.approx(11.4352) and teacher.logit_bias == pytest.approx(-11.6407)

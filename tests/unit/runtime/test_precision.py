"""Number formats of the frozen encoders, and torch.compile, as far as a CPU can show them."""

import sys
from contextlib import nullcontext

import pytest
import torch
from sewing_world import backbone

from cutsew.config.networks import (
    OpenClipStudentConfig,
    OpenClipStudentModelConfig,
    OpenClipTeacherConfig,
    OpenClipTeacherModelConfig,
)
from cutsew.errors import UserError
from cutsew.models import backbones, teachers
from cutsew.models.image_encoder import image_encoder
from cutsew.runtime import batching
from cutsew.runtime.device import allow_tf32, tensor_cores, tf32_allowed, with_precision

TINY = {"model": "cutsew-tiny", "pretrained": "demo", "image_size": 64}


@pytest.fixture(autouse=True)
def flags():
    """What a test says about TF32 holds for that test alone."""
    before = tf32_allowed()
    yield
    allow_tf32(*before)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("precision", ["tf32", "float32", "bfloat16"])
def test_an_encoder_computes_in_its_precision_and_answers_in_float32(precision):
    seen = []

    def encoder(images):
        product = images @ images.T
        seen.append(product.dtype)
        return product

    result = with_precision(encoder, precision, "cpu", compiled=False, setting="teacher")(torch.eye(3))
    assert result.dtype == torch.float32
    assert seen == [torch.bfloat16 if precision == "bfloat16" else torch.float32]
    assert tf32_allowed() == (False, False)


@pytest.mark.parametrize("precision", ["tf32", "float32", "bfloat16"])
def test_tf32_is_allowed_for_the_encoder_that_asked_for_it_alone(monkeypatch, precision):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    seen = []

    def encoder(images):
        seen.append(tf32_allowed())
        return images

    one = with_precision(encoder, precision, "cuda", compiled=False, setting="teacher")
    other = with_precision(encoder, "float32", "cuda", compiled=False, setting="student")
    for run in (one, other, one):
        run(torch.eye(3))
        assert tf32_allowed() == (False, False)  # texts, maps, heads
    allowed = precision != "float32"
    assert seen == [(allowed, allowed), (False, False), (allowed, allowed)]


@pytest.mark.parametrize(
    ("can", "precision", "told"),
    [({}, "bfloat16", True), ({}, "tf32", False), ({"avx512_bf16": True}, "bfloat16", False)],
)
def test_bfloat16_on_a_processor_without_it_is_told(monkeypatch, caplog, can, precision, told):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    with_precision(torch.nn.Identity(), precision, "cpu", compiled=False, setting="teacher")
    assert ("teacher.precision: this CPU lacks bfloat16 instructions" in caplog.text) is told


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
def test_a_library_that_sets_torchs_newer_switch_of_tf32_changes_nothing(precision):
    """Reading `allow_tf32` raises once the two switches disagree."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.backends.fp32_precision, products.fp32_precision, convolutions.conv.fp32_precision
    try:
        allow_tf32(precision == "ieee")
        torch.backends.fp32_precision = precision
        products.fp32_precision = convolutions.conv.fp32_precision = precision
        with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
            _ = products.allow_tf32
        for allowed in (True, False):
            with tensor_cores(allowed):
                assert tf32_allowed() == (allowed, allowed)
                assert products.fp32_precision == convolutions.conv.fp32_precision == ("tf32" if allowed else "ieee")
            assert tf32_allowed() == (precision == "tf32", precision == "tf32")
    finally:
        torch.backends.fp32_precision, products.fp32_precision, convolutions.conv.fp32_precision = before


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32"])
def test_bfloat16_on_a_gpu_before_ampere_is_refused(monkeypatch, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    refusal = r"teacher\.precision: bfloat16 needs .* and this is a Tesla T4; set float16"
    expected = pytest.raises(UserError, match=refusal) if precision == "bfloat16" else nullcontext()
    with expected:
        with_precision(torch.nn.Identity(), precision, "cuda", compiled=False, setting="teacher")


def test_float16_needs_a_gpu():
    with pytest.raises(UserError, match="student.precision: float16 needs a GPU"):
        backbone(OpenClipStudentConfig(precision="float16"))


def test_a_teacher_in_bfloat16_says_nearly_the_same(images):
    plain, fast = (
        teachers.build(OpenClipTeacherConfig(open_clip=OpenClipTeacherModelConfig(**TINY), precision=precision), "cpu")
        for precision in ("float32", "bfloat16")
    )
    one, other = plain.embed_images(images), fast.embed_images(images)
    assert other.dtype == torch.float32 and not torch.equal(one, other)
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99
    assert torch.equal(plain.embed_texts(["a cat"]), fast.embed_texts(["a cat"]))  # texts are always in float32
    assert torch.equal(fast.embed_images(images[1:2]), other[1:2])  # whatever the batch


def test_a_compiled_backbone_gives_the_same_features(images):
    plain, compiled = (
        backbones.build(OpenClipStudentConfig(open_clip=OpenClipStudentModelConfig(**TINY), compiled=compiled), "cpu")
        for compiled in (False, True)
    )
    assert torch.allclose(plain(images), compiled(images), atol=1e-4)
    assert torch.equal(compiled(images[1:3]), compiled(images)[1:3])
    assert compiled.describe()["compiled"] is True


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_says_nearly_the_same_whatever_the_batch(images, precision):
    pytest.importorskip("openvino")
    plain, fast = (
        teachers.build(
            OpenClipTeacherConfig(open_clip=OpenClipTeacherModelConfig(**TINY), precision=chosen, runtime=runtime),
            "cpu",
        )
        for chosen, runtime in (("float32", "torch"), (precision, "openvino"))
    )
    one, other = plain.embed_images(images), fast.embed_images(images)
    assert torch.nn.functional.cosine_similarity(one, other).min() > (0.99999 if precision == "float32" else 0.99)
    assert torch.equal(fast.embed_images(images[1:2]), other[1:2])
    assert torch.equal(fast.embed_images(images.contiguous(memory_format=torch.channels_last)), other)


def test_where_openvino_cannot_be_used(monkeypatch):
    encoder = torch.nn.Identity()
    with pytest.raises(UserError, match="runtime: openvino computes on the CPU"):
        image_encoder(encoder, 8, OpenClipTeacherConfig(runtime="openvino"), "cuda")
    with pytest.raises(UserError, match="float16 needs a GPU"):
        image_encoder(encoder, 8, OpenClipTeacherConfig(runtime="openvino", precision="float16"), "cpu")
    with pytest.raises(ValueError, match="compiled is for runtime torch"):
        OpenClipTeacherConfig(runtime="openvino", compiled=True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"openvino needs the package openvino; run: pip install 'cutsew\[openvino\]'"):
        image_encoder(encoder, 8, OpenClipTeacherConfig(runtime="openvino"), "cpu")


def test_a_compiled_encoder_is_called_with_one_size_of_batch(monkeypatch):
    sizes = []

    def compiled(function):
        def run(images):
            sizes.append(len(images))
            return function(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(batching.halving, "most", None)
    encode = with_precision(lambda x: x * 2, "float32", "cpu", compiled=True, setting="teacher")
    for count in (8, 8, 3):
        images = torch.rand(count, 2)
        assert torch.equal(encode(images), images * 2)
    monkeypatch.setattr(batching.halving, "most", 4)  # eight did not fit into memory
    assert encode(torch.rand(3, 2)).shape == (3, 2)
    assert sizes == [8, 8, 8, 4]

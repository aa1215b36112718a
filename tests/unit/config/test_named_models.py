"""Models that bring their configuration: local-dir:<folder> and hf-hub:<org>/<name>, with no network."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tiny_models import checkpoint, model_folder, tokenizer

from cutsew.config import named_models
from cutsew.config.loading import load
from cutsew.config.named_models import OPEN_CLIP_CONFIG as CONFIG
from cutsew.config.networks import (
    OpenClipStudentConfig,
    OpenClipStudentModelConfig,
    OpenClipTeacherConfig,
    OpenClipTeacherModelConfig,
)
from cutsew.errors import UserError
from cutsew.models import backbones, clip, teachers
from cutsew.pipeline import network_work, sizing
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import validate_inputs
from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import open_clip  # noqa: E402

pytest.importorskip("transformers")
MODEL = r"^teacher\.open_clip\.model: "
TEXTS = ["a photo of a cat", "a photo of a dog"]


def build(model, **settings):
    section = OpenClipTeacherModelConfig.model_validate({"model": model, "image_size": None, **settings})
    return teachers.build(OpenClipTeacherConfig(open_clip=section), "cpu")


def config_of(tmp_path, model, section="teacher", **more):
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    (images / "a.jpg").write_bytes(b"")
    return load(
        {
            "classes": ["cat", "dog"],
            "dataset": {"kind": "folder", "name": "x", "root": str(images)},
            "student": {"kind": "none"},
            section: {"kind": "open_clip", "open_clip": {"model": model, **more}},
        }
        | ({"select": {"top_k": 1}} if section == "student" else {})
    )


def cache(monkeypatch, folder, repository="somebody/model"):
    """Lay a folder out as the hub's cache has it."""
    hub = folder / "hub" / f"models--{repository.replace('/', '--')}"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    return hub / "snapshots" / ("0" * 40)


@pytest.mark.parametrize("own_tokenizer", [True, False])
def test_a_folder_is_what_open_clip_makes_of_it(tmp_path, own_tokenizer):
    name, model = model_folder(tmp_path / "m", own_tokenizer=own_tokenizer)
    teacher = build(name)
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True)
        seen = model.encode_image((images / 255 - 0.5) / 0.25, normalize=True)
    torch.testing.assert_close(teacher.embed_texts(TEXTS), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(teacher.embed_images(images), seen, atol=2e-6, rtol=0)
    assert (teacher.image_size, teacher.width) == (32, 24)
    state = load_file(tmp_path / "m/open_clip_model.safetensors")
    state["logit_scale"] += 1
    save_file(state, tmp_path / "m/open_clip_model.safetensors")
    assert build(name).weights_digest != teacher.weights_digest


def test_the_hubs_cache_is_what_its_folder_is(tmp_path, monkeypatch):
    snapshot = cache(monkeypatch, tmp_path)
    folder, _ = model_folder(snapshot, own_tokenizer=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("the network was asked"))
    assert build("hf-hub:somebody/model").weights_digest == build(folder).weights_digest
    config = config_of(tmp_path, "hf-hub:somebody/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    validate_inputs(config)
    assert config.teacher.open_clip.model_dump()["pretrained"] is None


def test_no_network_is_asked(tmp_path):
    """In a process of its own, whose look-ups are noted; teacher with its tokenizer, and student."""
    name, _ = model_folder(tmp_path / "m")
    checkpoint(tmp_path, "test-vit")
    cut = tmp_path / "cut/site"
    cut.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "support/no_network.py", cut / "sitecustomize.py")
    code = f"""
from test_named_models import TEXTS, build
from cutsew.models import backbones
from cutsew.config.networks import parse_student
build({name!r}).embed_texts(TEXTS)
named = {{"model": {name!r}, "image_size": 32}}
backbones.build(parse_student({{"kind": "open_clip", "open_clip": named}}), "cpu")
"""
    paths = os.pathsep.join([str(cut), str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path, capture_output=True)
    assert not (tmp_path / "asked").exists()


def test_a_student_of_a_folder_is_built_without_it(tmp_path):
    name, _ = model_folder(tmp_path / "m")
    settings = OpenClipStudentConfig(open_clip=OpenClipStudentModelConfig(model=name, image_size=64))
    trained = backbones.build(settings, "cpu")
    described, state = trained.describe(), trained.tower.state_dict()
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(UserError, match=r"^student\.open_clip\.model: .*: no such folder"):
        backbones.build(settings, "cpu", state)
    known = settings.model_copy(
        update={
            "open_clip": settings.open_clip.model_copy(
                update={"preprocessing": settings.open_clip.preprocessing.model_validate(IMAGES)}
            )
        }
    )
    with named_models.described_as(name, json.loads(json.dumps(described["architecture"]))):
        again = backbones.build(known, "cpu", state)
    assert again.weights_digest == trained.weights_digest
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(again(images), trained(images))


IMAGES = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}


def test_the_tokenizer_next_to_a_checkpoint_is_taken(tmp_path, monkeypatch):
    """For a model of open_clip whose tokenizer is on the hub."""
    folder, model = model_folder(tmp_path / "m")
    path = tmp_path / "names/test-words.json"
    path.parent.mkdir()
    path.write_text(json.dumps(json.loads((tmp_path / "m/open_clip_config.json").read_text())["model_cfg"]))
    open_clip.add_model_config(path)
    weights = str(tmp_path / "m/open_clip_model.safetensors")
    assert torch.equal(build("test-words", pretrained=weights).embed_texts(TEXTS), build(folder).embed_texts(TEXTS))
    (tmp_path / "m/tokenizer.json").unlink()
    (tmp_path / "m/tokenizer_config.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=MODEL + "test-words: its tokenizer, somebody/words, is not in the hub's cache"):
        build("test-words", pretrained=weights)


def test_weights_come_with_the_name(tmp_path):
    name, _ = model_folder(tmp_path / "m")
    with pytest.raises(ValidationError, match="pretrained: local-dir:.* brings its weights; set pretrained: null"):
        OpenClipTeacherModelConfig(model=name, pretrained="openai")
    with pytest.raises(ValidationError, match="pretrained: has no weights of RN50; give a tag or a local file"):
        OpenClipTeacherModelConfig(model="RN50", pretrained=None)
    assert OpenClipTeacherModelConfig(model=name).pretrained is None
    with pytest.raises(UserError, match=r"^teacher\.open_clip: pretrained: hf-hub:a/b brings its weights"):
        config_of(tmp_path, "hf-hub:a/b", pretrained="openai")


def lacking(name):
    return lambda folder: (folder / name).unlink()


def writing(name, text):
    return lambda folder: (folder / name).write_text(text)


def two_unnamed(folder):
    (folder / "open_clip_model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


FAULTS = {
    "no folder": (shutil.rmtree, "no such folder; give the folder that holds open_clip_config.json"),
    "no configuration": (lacking("open_clip_config.json"), r"open_clip_config\.json: no such file; copy"),
    "a damaged configuration": (writing("open_clip_config.json", "{"), "does not describe a model of open_clip"),
    "another library's": (
        writing("open_clip_config.json", '{"architectures": []}'),
        "does not describe a model of open_clip",
    ),
    "no weights": (lacking("open_clip_model.safetensors"), r"holds no file of weights named open_clip_model\."),
    "two files of weights": (two_unnamed, r"several files of weights \(a\.safetensors, b\.safetensors\)"),
    "no tokenizer": (no_tokenizer, r"holds no tokenizer \(tokenizer\.json or tokenizer_config\.json\); copy"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_folder_lacks_is_told_before_the_first_job(tmp_path, fault):
    name, _ = model_folder(tmp_path / "m")
    config = config_of(tmp_path, name)
    validate_inputs(config)
    change, says = FAULTS[fault]
    change(tmp_path / "m")
    for attempt in (lambda: validate_inputs(config), lambda: build(name)):
        with pytest.raises(UserError, match=MODEL + f".*{says}") as error:
            attempt()
        assert "\n" not in str(error.value)


def test_transformers_is_asked_for_before_the_first_job(tmp_path, monkeypatch):
    name, _ = model_folder(tmp_path / "m")
    plain, _ = model_folder(tmp_path / "plain", own_tokenizer=False)
    result = importlib.util.find_spec
    monkeypatch.setattr(
        named_models, "find_spec", lambda package: None if package == "transformers" else result(package)
    )
    says = MODEL + r".* needs the package transformers; run: pip install 'cutsew\[hub\]'$"
    with pytest.raises(UserError, match=says):
        validate_inputs(config_of(tmp_path, name))
    with pytest.raises(UserError, match=says):
        build(name)
    with pytest.raises(UserError, match=says):
        validate_inputs(config_of(tmp_path, "ViT-B-16-SigLIP", pretrained="webli"))
    validate_inputs(config_of(tmp_path, plain))
    build(plain)


def test_no_hub(tmp_path, monkeypatch):
    """Known before the first job where the environment says so, else told by the first job that needs it."""
    config = config_of(tmp_path, "hf-hub:somebody/model")
    validate_inputs(config)

    def fail(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    for name in ("hf-hub:somebody/model", "hf-hub:nobody"):
        reason = r"no route to host\); .*local-dir:<folder>.*config/offline\.yaml" if "/" in name else "no repository"
        with pytest.raises(UserError, match=MODEL + f"{name}: .*{reason}") as error:
            build(name)
        assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(
        UserError, match=MODEL + r".* not in the hub's cache, and HF_HUB_OFFLINE is set; .*offline\.yaml"
    ):
        validate_inputs(config)
    with pytest.raises(UserError, match=r"^teacher\.open_clip\.pretrained: openai of RN50 is not in the hub's cache"):
        validate_inputs(config_of(tmp_path, "RN50", pretrained="openai"))


def test_a_tag_in_the_cache_needs_no_hub(tmp_path, monkeypatch):
    repository = open_clip.pretrained.get_pretrained_cfg("RN50", "openai")["hf_hub"].rstrip("/")
    snapshot = cache(monkeypatch, tmp_path, repository)
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").write_bytes(b"")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    validate_inputs(config_of(tmp_path, "RN50", pretrained="openai"))


def test_a_tokenizer_of_another_model(tmp_path):
    name, _ = model_folder(tmp_path / "m", own_tokenizer=False, vocab_size=10)
    with pytest.raises(
        UserError, match=MODEL + r"the tokenizer of .* produces token \d+, but the text tower has only 10 tokens"
    ):
        build(name).embed_texts(TEXTS)
    damaged, _ = model_folder(tmp_path / "d")
    (tmp_path / "d/tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=MODEL + "the tokenizer of .* cannot be loaded"):
        build(damaged)


def test_no_code_of_a_model_is_run(tmp_path):
    """A tokenizer that names a class in the folder, with a configuration that asks for it to be trusted."""
    name, _ = model_folder(tmp_path / "m", tokenizer_kwargs={"trust_remote_code": True})
    (tmp_path / "m/code.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass T: pass\n"
    )
    settings = json.loads((tmp_path / "m/tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["code.T", "code.T"]}}
    (tmp_path / "m/tokenizer_config.json").write_text(json.dumps(settings))
    with contextlib.suppress(UserError):
        build(name)
    assert not (tmp_path / "ran").exists()


def test_sizes_of_jobs(tmp_path):
    name, _ = model_folder(tmp_path / "m")
    job = sizing.Job(images=1000, passes=21, threads=1, gpu=False)
    named = config_of(tmp_path, name)
    unknown = config_of(tmp_path, "hf-hub:somebody/unknown")
    assert sizing.estimate_memory_mb(named, "encode", job) < sizing.estimate_memory_mb(unknown, "encode", job)
    assert sizing.estimate_runtime_min(named, "encode", job) < sizing.estimate_runtime_min(unknown, "encode", job)
    for model, exact, weights in (("ViT-B-16", 35, 600), ("ViT-L-14", 162, 1720)):
        work, megabytes = network_work.described_work(open_clip.get_model_config(model), 224)
        assert work == pytest.approx(exact, rel=0.15)
        assert megabytes == pytest.approx(weights, rel=0.2)


def test_tagclip_of_a_named_resnet_is_refused(tmp_path):
    model_folder(tmp_path / "m")
    path = tmp_path / "m/open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["vision_cfg"] = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
    path.write_text(json.dumps(content))
    config = config_of(tmp_path, f"local-dir:{tmp_path / 'm'}")
    tagclip = config.model_copy(update={"score": config.score.model_copy(update={"rule": "tagclip"})})
    with pytest.raises(UserError, match="tagclip reads the patches"):
        validate_inputs(tagclip)


def test_tokenizers_are_found_where_they_lie(tmp_path):
    assert named_models.tokenizer_folder("RN50", None) is None
    assert named_models.tokenizer_folder(f"local-dir:{tmp_path}", None) is None
    tokenizer(tmp_path)
    assert named_models.tokenizer_folder(f"local-dir:{tmp_path}", None) == tmp_path
    assert named_models.tokenizer_folder("RN50", str(tmp_path / "w.pt")) == tmp_path
    plain = open_clip.get_model_config("RN50")
    assert named_models.localized(plain, tmp_path) == plain
    assert clip.tokenizer(OpenClipTeacherModelConfig(model="RN50"), "teacher.open_clip")(TEXTS).shape == (2, 77)


def test_replaced_files_are_watched(tmp_path, monkeypatch):
    """What the rules' params hold digests of, so that a replaced file reruns what reads it."""
    name, _ = model_folder(tmp_path / "m")
    plan = Plan(config_of(tmp_path, name).model_dump(mode="json"))
    watched = {path.name for path in plan.weights("default", "encode")}
    assert watched == {
        "open_clip_model.safetensors",
        "open_clip_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    (tmp_path / "m/open_clip_model.safetensors").unlink()
    assert plan.weights("default", "encode") == []
    hub = Plan(config_of(tmp_path, "hf-hub:somebody/model").model_dump(mode="json"))
    assert hub.weights("default", "encode") == []
    snapshot = cache(monkeypatch, tmp_path)
    model_folder(snapshot, own_tokenizer=False)
    assert {path.name for path in hub.weights("default", "text")} == {"open_clip_model.safetensors", CONFIG}

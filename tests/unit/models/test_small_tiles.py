"""Tiles at a side of their own: resized towers, the automatic layout, refusals and the stage that stores them."""

import json

import numpy as np
import pytest
import torch
from manifests import make_noise
from PIL import Image
from tiny_models import TEXT, VISION, checkpoint

from cutsew.config import load
from cutsew.config.cutting import not_whole_cells, parse_cut
from cutsew.config.loading import DEFAULT
from cutsew.config.networks import parse_teacher
from cutsew.data.images import read_image
from cutsew.errors import UserError
from cutsew.method.crops import crop_boxes
from cutsew.method.resample import crop_resize_all
from cutsew.models import teachers, view_embedding
from cutsew.models.clip import resize_position_embedding
from cutsew.pipeline import network_work
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import validate_inputs
from cutsew.runtime.lazy_imports import import_torchvision
from cutsew.stages.encode import encode
from cutsew.stages.seal import seal
from cutsew.storage.tables import read_record
from cutsew.storage.zarr_reader import array_of, open_group, read

import_torchvision()
import open_clip  # noqa: E402
from open_clip.model import resize_pos_embed  # noqa: E402
from timm.layers import resample_abs_pos_embed  # noqa: E402

BASE = {"classes": ["cat", "dog", "bus"]}


def settings_of(model, pretrained):
    section = {"model": model, "pretrained": str(pretrained), "image_size": None}
    section["preprocessing"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    chosen = {"kind": "open_clip", "precision": "float32", "compiled": False, "runtime": "torch"}
    return {**chosen, "open_clip": section}


def build(model, pretrained):
    return teachers.build(parse_teacher(settings_of(model, pretrained)), "cpu")


def views(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(0))


def plainly(model, images):
    with torch.no_grad():
        return model.encode_image((images.float() / 255 - 0.5) / 0.5, normalize=True)


@pytest.mark.parametrize("name", ["test-vit", "test-resnet"])
def test_the_native_side_gives_todays_bits(tmp_path, name):
    path, _ = checkpoint(tmp_path, name)
    teacher = build(name, path)
    images = views(5, teacher.image_size)
    assert torch.equal(teacher.at_side(teacher.image_size)(images), teacher.embed_images(images))


@pytest.mark.parametrize("side", [16, 48])
def test_a_vision_transformer_at_another_side_is_open_clips_own_of_that_size(tmp_path, side):
    path, model = checkpoint(tmp_path, "test-vit")
    torch.nn.init.normal_(model.visual.positional_embedding, std=0.5)
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    teacher, images = build("test-vit", path.with_suffix(".pt")), views(5, side)
    native = teacher.embed_images(views(2, 32))
    sized = open_clip.CLIP(embed_dim=24, vision_cfg={**VISION["test-vit"], "image_size": side}, text_cfg=TEXT).eval()
    state = model.state_dict()
    resize_pos_embed(state, sized)
    sized.load_state_dict(state)
    result = teacher.at_side(side)(images)
    torch.testing.assert_close(result, plainly(sized, images), atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat([teacher.at_side(side)(images[i : i + 1]) for i in range(5)]), result)
    assert torch.equal(teacher.embed_images(views(2, 32)), native)  # the teacher itself is left as it was


def test_a_clip_resnet_at_another_side_resizes_its_attention_pool(tmp_path):
    path, model = checkpoint(tmp_path, "test-resnet")
    sized = open_clip.CLIP(embed_dim=24, vision_cfg={**VISION["test-resnet"], "image_size": 96}, text_cfg=TEXT).eval()
    state = model.state_dict()
    name = "visual.attnpool.positional_embedding"
    state[name] = resize_position_embedding(state[name], (3, 3))
    sized.load_state_dict(state)
    images = views(3, 96)
    result = build("test-resnet", path).at_side(96)(images)
    torch.testing.assert_close(result, plainly(sized, images), atol=1e-5, rtol=1e-5)


def timm_model(folder, name, timm_name, pool, size):
    vision = {"timm_model_name": timm_name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": "linear"}
    described = {"embed_dim": 24, "vision_cfg": {**vision, "image_size": size}, "text_cfg": TEXT}
    (folder / f"{name}.json").write_text(json.dumps(described))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(name, force_image_size=size).eval()
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return folder / f"{name}.pt", model


def test_a_timm_transformer_with_an_attention_pool_is_resampled_by_timm(tmp_path):
    path, model = timm_model(tmp_path, "test-tiles-map", "test_vit3", "map", 160)
    trunk = model.visual.trunk
    assert trunk.attn_pool is not None
    before = trunk.num_prefix_tokens if not trunk.no_embed_class else 0
    _, sized = timm_model(tmp_path, "test-tiles-map-small", "test_vit3", "map", 96)
    state = model.state_dict()
    name = "visual.trunk.pos_embed"
    state[name] = resample_abs_pos_embed(state[name], new_size=(6, 6), num_prefix_tokens=before)
    sized.visual.set_input_size(96)
    sized.load_state_dict(state)
    images = views(3, 96)
    teacher = build("test-tiles-map", path)
    teacher_side = teacher.at_side(96)(images)
    torch.testing.assert_close(teacher_side, plainly(sized, images), atol=1e-5, rtol=1e-5)


def test_sides_that_a_tower_does_not_take_are_refused(tmp_path):
    path, _ = checkpoint(tmp_path, "test-vit")
    with pytest.raises(UserError, match=r"cut.tiles: side 24 is not a multiple of the 16 pixels .* set 16 or 32"):
        build("test-vit", path).at_side(24)
    assert not_whole_cells(20, 32, "m").endswith("set 32")
    teacher = build("test-vit", path)
    del teacher.visual.positional_embedding
    with pytest.raises(UserError, match=r"cut.tiles: test-vit's tower takes no images of 16 pixels \(.*\); set side"):
        teacher.at_side(16)


@pytest.mark.parametrize(
    ("model", "side", "fitting"), [("ViT-B-32", 70, "64 or 96"), ("RN50", 70, "64 or 96"), ("ViT-B-16-SigLIP", 9, "16")]
)
def test_sides_are_refused_before_the_first_job(model, side, fitting):
    teacher = {
        "kind": "open_clip",
        "open_clip": {"model": model, "pretrained": "webli" if "Sig" in model else "openai"},
    }
    cut = {"layout": "tiles", "tiles": [{"grid": 2, "share": 0.5, "side": side}]}
    with pytest.raises(
        UserError, match=rf"cut.tiles: side {side} is not a multiple of .* {model}'s grid; set {fitting}$"
    ):
        validate_inputs(load({**BASE, "teacher": teacher, "cut": cut}))


@pytest.mark.parametrize(
    ("model", "side"), [("ViT-B-32", 192), ("ViT-B-16", 192), ("ViT-L-14", 196), ("ViT-B-16-SigLIP", 192)]
)
def test_the_automatic_layout_gives_a_vision_transformer_small_tiles(model, side):
    teacher = {"kind": "open_clip", "open_clip": {"model": model, "image_size": None}}
    plan = Plan({**BASE, "teacher": teacher, "cut": {"layout": "auto"}})
    cut = plan.runs[DEFAULT].cut
    assert cut.layout == "tiles"
    assert [level.model_dump() for level in cut.tiles] == [{"grid": 3, "share": 1 / 3, "side": side}]
    assert json.loads(plan.params(DEFAULT, "encode"))["cut"]["tiles"][0]["side"] == side
    local_values = [{"grid": 2, "share": 0.5, "side": None}]
    kept = Plan({**BASE, "teacher": teacher, "cut": {"layout": "auto", "tiles": local_values}}).runs[DEFAULT].cut
    assert [level.model_dump() for level in kept.tiles] == local_values


def test_the_side_of_tiles_reruns_encode_and_what_follows():
    changes = {"cut.layout": "tiles", "cut.tiles": [{"grid": 3, "share": 0.4, "side": 64}]}
    tiles = Plan({**BASE, "cut": {"layout": "tiles"}, "runs": {"small": changes}})
    assert (tiles.source_run("small", "encode"), tiles.source_run("small", "text")) == ("small", DEFAULT)


def test_jobs_ask_for_the_work_of_smaller_tiles():
    teacher = {"kind": "open_clip", "open_clip": {"model": "ViT-B-32", "image_size": None}}
    tiles = [{"grid": 1, "share": 1.0}, {"grid": 3, "share": 0.34, "side": 192}]
    config = load({**BASE, "teacher": teacher, "cut": {"layout": "tiles", "tiles": tiles}})
    assert config.cut.by_side(range(10), 224) == [(range(1), 224), (range(1, 10), 192)]
    assert config.cut.by_side(range(4, 6), 224) == [(range(4, 6), 192)]
    assert network_work.views(config, range(10)) == 8  # 1 + 9 * (192 / 224) ** 2 = 7.6
    assert network_work.views(load({**BASE, "teacher": teacher}), range(10)) == 10


def test_encode_stores_tiles_of_two_sides(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(view_embedding, "read_image", lambda path, **_: decoded.append(path) or read_image(path))
    path, _ = checkpoint(tmp_path, "test-vit")
    images = make_noise(tmp_path)
    cut = {"layout": "tiles", "passes_per_job": 8}
    cut["tiles"] = [{"grid": 2, "share": 0.5, "side": None}, {"grid": 2, "share": 0.5, "side": 16}]
    settings = {"teacher": settings_of("test-vit", path), "cut": cut, "dataset": {"shard_size": 4}}
    group = tmp_path / "views.zarr"
    encode(tmp_path / "images.parquet", group, settings, shard=0, block=0, passes=8, device="cpu", batch_size=3)
    assert len(decoded) == len(set(decoded)) == 3  # once for the whole images and the tiles of both sides
    seal(tmp_path / "images.parquet", group / "zarr.json", settings)
    crops, boxes = (read(array_of(open_group(group), name)) for name in ("crops", "boxes"))
    assert (boxes[:4] == boxes[4:]).all()
    assert boxes[:4, 0].tolist() == [[0, 0, 30, 20, 0], [30, 0, 60, 20, 0], [0, 20, 30, 40, 0], [30, 20, 60, 40, 0]]
    teacher = build("test-vit", path)
    image = Image.open(images["path"][2]).convert("RGB")
    placed = crop_boxes(images["digest"][2], 60, 42, range(8), **parse_cut(cut).placement())
    for chosen, side in ((slice(0, 4), 32), (slice(4, 8), 16)):
        expected = teacher.at_side(side)(crop_resize_all(image, placed[chosen], side)).numpy().astype(np.float16)
        assert np.array_equal(crops[chosen, 2], expected)
    assert not np.allclose(crops[:4], crops[4:], atol=1e-2)
    record = next((tmp_path / "views.records").glob("*.json"))
    assert read_record(record, "facts")["sides"] == [32] * 4 + [16] * 4

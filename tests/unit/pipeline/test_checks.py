import json
import subprocess
import sys

import numpy as np
import pytest

from cutsew.config import load
from cutsew.config.networks import OpenClipTeacherConfig
from cutsew.data.truth_csv import check_csv
from cutsew.errors import UserError, in_one_line
from cutsew.models.activation import trained_with
from cutsew.pipeline.preflight import validate_inputs


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    (folder / "test").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg", "test/d.jpg"):
        (folder / name).touch()  # never opened
    return folder


def config_of(root, **changes):
    raw = {"classes": ["dog", "cat"], "dataset": {"kind": "folder", "root": str(root)}, "select": {"top_k": 2}}
    for section, values in changes.items():
        raw[section] = {**raw.get(section, {}), **values} if isinstance(values, dict) else values
    return load(raw)


def refused(config, message):
    with pytest.raises(UserError, match=message) as caught:
        validate_inputs(config)
    assert "\n" not in str(caught.value)


def test_what_is_well_passes(root, tmp_path):
    truth = tmp_path / "t.csv"
    truth.write_text("path,labels\na.jpg,dog\nb.jpg,cat;cow\n")
    validate_inputs(config_of(root, dataset={"truth": str(truth), "test": {"folder": "test"}}))
    validate_inputs(load({"classes": ["dog", "cat"]}))


def test_root_missing_or_empty(root, tmp_path):
    refused(config_of(tmp_path / "none"), r"dataset\.root: .* is not a folder")
    (tmp_path / "empty").mkdir()
    refused(config_of(tmp_path / "empty"), r"dataset\.root: no images below")
    refused(config_of(tmp_path / "none", dataset={"kind": "voc"}), r"dataset\.root: .* is not a folder")


def test_lists(root, tmp_path):
    refused(config_of(root, dataset={"test": {"list": "none.txt"}}), r"dataset\.test\.list: none.txt does not exist")
    refused(config_of(root, dataset={"test": {"folder": "none"}}), r"dataset\.test\.folder: no images in none")
    refused(config_of(root, dataset={"kind": "voc"}), r"dataset\.voc\.train: .*train\.txt does not exist")
    path = tmp_path / "all.txt"
    path.write_text("a.jpg\nb.jpg\nc.jpg\ntest/d.jpg\n")
    refused(config_of(root, dataset={"test": {"list": str(path)}}), r"dataset\.test: leaves no image")


def test_heic_is_refused_where_it_cannot_be_read(root, monkeypatch):
    (root / "d.heic").write_bytes(b"\xff\xd8\xff a JPEG by another name")
    monkeypatch.setattr("cutsew.pipeline.preflight.reads_heif", lambda: False)
    validate_inputs(config_of(root))
    for name in ("e.HEIC", "f.heif"):
        (root / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    refused(
        config_of(root),
        r"e\.HEIC: HEIC, which needs an extra, as 3 images are named; install it with pip install .cutsew\[heic\]., or",
    )
    validate_inputs(config_of(root, dataset={"on_bad_image": "skip"}))
    monkeypatch.setattr("cutsew.pipeline.preflight.reads_heif", lambda: True)
    validate_inputs(config_of(root))


def test_top_k(root):
    validate_inputs(config_of(root, select={"top_k": 4}))
    refused(config_of(root, select={"top_k": 5}), r"select\.top_k: 5 is more than the 4 of .*set it to 4 or less")
    refused(config_of(root, select={"top_k": 4}, dataset={"test": {"folder": "test"}}), r"select\.top_k: 4 .* the 3 of")
    raw = {"classes": ["dog", "cat"], "dataset": {"kind": "folder", "root": str(root)}}
    validate_inputs(load(raw | {"student": {"kind": "none"}}))  # the default is more than there are images
    validate_inputs(load(raw | {"sew": {"kind": "none"}}))
    demo = {"classes": ["dog", "cat"], "dataset": {"demo": {"train": 40}}, "select": {"top_k": 41}}
    refused(load(demo), r"select\.top_k: 41 is more than the 40 of dataset\.demo\.train")


def test_top_k_of_what_a_fraction_leaves(root):
    for i in range(96):
        (root / f"{i}.jpg").touch()
    half = {"test": {"fraction": 0.5}}
    validate_inputs(config_of(root, select={"top_k": 50}, dataset=half))
    refused(
        config_of(root, select={"top_k": 51}, dataset=half),
        r"select\.top_k: 51 is more than the about 50 that dataset\.test\.fraction leaves to train on; set it to 30 or",
    )
    nearly_all = {"test": {"fraction": 0.999}}
    validate_inputs(config_of(root, select={"top_k": 1}, dataset=nearly_all))  # the manifest tells whether one is left
    refused(config_of(root, select={"top_k": 2}, dataset=nearly_all), "more than the about 1 that .* set it to 1 or")


def test_passes_of_a_file_of_scores(root, tmp_path):
    ids = ["a", "b", "c", "d"]
    score = np.full((4, 2), 0.5)
    np.savez(tmp_path / "s.npz", ids=ids, classes=["dog", "cat"], zero_shot=score, crops=np.stack([score] * 3))
    scores = {"kind": "scores", "scores": {"file": str(tmp_path / "s.npz")}}
    validate_inputs(config_of(root, teacher=scores, fuse={"passes": 3}))
    refused(
        config_of(root, teacher=scores, fuse={"passes": 4}),
        r"fuse\.passes: 4 is more than the 3 passes in .*s\.npz; set it to 3 or less",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"batch_size": 64}},
        {"explain": {"num_embeddings": 600, "num_maps": 40}},
        {"cut": {"passes": 2, "passes_per_job": 10}},
        {"evaluate": {"top": 3}},
        {"targets": {"labels_per_image": 1.5}},
    ],
)
def test_sizes_beyond_the_images_and_classes_that_stages_cut_themselves(root, changes):
    """A batch, a sample, a block of passes and the top-n are as large as there is content; see the stages' tests."""
    validate_inputs(config_of(root, **changes))


def test_weights_of_which_nothing_says_how_images_are_preprocessed(root, tmp_path):
    weights = tmp_path / "x.safetensors"
    weights.touch()
    local = {"model": "ViT-L-14", "pretrained": str(weights)}
    refused(config_of(root, teacher={"open_clip": local}), r"teacher\.open_clip\.pre.*set teacher\.open_clip\.tag")
    refused(config_of(root, student={"open_clip": local}), r"student\.open_clip\.pre.*set student\.open_clip\.tag")
    validate_inputs(config_of(root, teacher={"open_clip": local | {"tag": "openai"}}))
    refused(config_of(root, teacher={"open_clip": {"pretrained": "opnai"}}), r"RN50x64 has no weights opnai")
    timm = {"model": "resnet50", "weights": str(weights)}
    refused(config_of(root, student={"kind": "timm", "timm": timm}), r"timm\.weights: .*set student\.timm\.model")
    validate_inputs(config_of(root, student={"kind": "timm", "timm": timm | {"model": "resnet50.tv_in1k"}}))


def test_weights_given_as_paths(root, tmp_path):
    refused(config_of(root, teacher={"open_clip": {"pretrained": "w/x"}}), r"teacher\.open_clip\.pretrained: w/x does")
    refused(
        config_of(root, student={"open_clip": {"pretrained": "x.PT"}}), r"student\.open_clip\.pretrained: x\.PT does"
    )
    timm = {"kind": "timm", "timm": {"weights": "x"}}
    refused(config_of(root, student=timm), r"student\.timm\.weights: x does not exist")
    weights = tmp_path / "x.safetensors"
    weights.touch()
    validate_inputs(config_of(root, teacher={"open_clip": {"pretrained": str(weights)}}))
    validate_inputs(config_of(root, teacher={"kind": "conse"}))
    validate_inputs(config_of(root, student={"kind": "timm", "timm": {"weights": "pretrained"}}))


def test_weights_that_the_workflow_will_make(root):
    result = {"open_clip": {"pretrained": "results/demo/default/cutsew-tiny.safetensors"}}
    validate_inputs(
        load(
            {
                "classes": ["cat", "dog"],
                "dataset": {"demo": {"rebuild_teacher": True}},
                "teacher": result,
                "student": result,
            }
        )
    )
    refused(config_of(root, teacher=result), r"teacher\.open_clip\.pretrained")


def test_scores(root, tmp_path):
    scores = {"kind": "scores", "scores": {"file": str(tmp_path / "s.npz")}}
    refused(config_of(root, teacher=scores), r"teacher\.scores\.file: .* does not exist")
    (tmp_path / "s.npz").touch()
    validate_inputs(config_of(root, teacher=scores))
    validate_inputs(
        load({"classes": ["a", "b"], "dataset": {"kind": "ids"}, "teacher": scores, "student": {"kind": "none"}})
    )


def test_truth(root, tmp_path):
    refused(config_of(root, dataset={"truth": "none.csv"}), r"dataset\.truth: none\.csv does not exist")
    path = tmp_path / "t.csv"
    path.write_text("path,labels\na.jpg,dog\nb.jpg,dog;kat\n")
    validate_inputs(config_of(root, dataset={"truth": str(path)}))
    path.write_text("path,labels\na.jpg,god\nb.jpg,kat\n")
    refused(config_of(root, dataset={"truth": str(path)}), r"classes: .*names none of the .*other names: god, kat")
    path.write_text("path,labels\nother/a.jpg,dog\n")
    refused(config_of(root, dataset={"truth": str(path)}), r"names none of the images: line 2, .*'other/a\.jpg', where")
    path.write_text("path,names\n")
    refused(config_of(root, dataset={"truth": str(path)}), r"dataset\.truth: .* needs the columns")


def test_corrections_name_images_that_are_listed(root, tmp_path):
    """A job that fails on them would lose `corrections.parquet`, and the next run would train again."""
    stated = tmp_path / "audit.csv"
    stated.write_text("image,class,present\nA,dog,1\ntest/d.jpg,dog,0\n")
    config = config_of(root, labels={"overrides": str(stated)})
    validate_inputs(config)
    with stated.open("a") as file:
        file.write("e.jpg,dog,1\n")
    refused(config, r"^labels\.overrides: .*audit\.csv, line 4, column image: 'e\.jpg' is not an image of this run")


def test_the_images_of_many_runs_are_listed_once(root, monkeypatch):
    import cutsew.pipeline.preflight

    calls = []
    real = cutsew.pipeline.preflight.list_images
    monkeypatch.setattr(cutsew.pipeline.preflight, "list_images", lambda *a, **k: calls.append(a) or real(*a, **k))
    validate_inputs(*(config_of(root, fuse={"alpha": alpha}) for alpha in (0.1, 0.2, 0.3)))
    assert len(calls) == 1


def test_truth_is_read_once_for_all_runs(root, tmp_path, monkeypatch):
    path, read = tmp_path / "t.csv", []
    path.write_text("path,labels\na.jpg,dog;cat\n")
    monkeypatch.setattr(
        "cutsew.pipeline.preflight.check_csv", lambda *arguments: read.append((check_csv(*arguments), arguments))
    )
    raw = {"dataset": {"truth": str(path)}}
    runs = [config_of(root, **raw, cut={"seed": seed}) for seed in range(3)]
    validate_inputs(*runs)
    assert len(read) == 1
    with pytest.raises(UserError, match="names none of the"):
        validate_inputs(*runs, config_of(root, **raw, classes=["cow", "goat"]))


@pytest.mark.parametrize("module", ["cutsew.pipeline.preflight", "cutsew.stages.manifest", "cutsew.stages.truth"])
def test_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SIGLIP = {"teacher": {"open_clip": {"model": "ViT-B-16-SigLIP2", "pretrained": "webli"}}}
SCORES = {"teacher": {"kind": "scores", "scores": {"file": "s.npz"}}}


@pytest.mark.parametrize(
    "changes",
    [
        SIGLIP,
        SIGLIP | {"score": {"activation": "sigmoid"}, "fuse": {"rule": "soft"}},
        SIGLIP | {"classes": ["dog", "cat"], "score": {"activation": "softmax"}, "prompts": {"background": ["sky"]}},
        {"prompts": {"background": ["sky"]}},  # RN50x64 with something to compete with
        {"prompts": {"background": ["sky"]}, "teacher": {"kind": "conse"}},
        {"teacher": {"open_clip": {"model": "hf-hub:somebody/clip"}}},  # only loading it tells: stage text sees to it
        SCORES,
        SCORES | {"score": {"activation": "sigmoid"}},
    ],
)
def test_one_class_is_enough_where_it_can_be_judged(root, tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    np.savez("s.npz", ids=["a.jpg", "b.jpg", "c.jpg", "test/d.jpg"], classes=["dog"], zero_shot=np.full((4, 1), 0.5))
    validate_inputs(config_of(root, **{"classes": ["dog"], **changes}))


@pytest.mark.parametrize(
    ("teacher", "windows", "refusal"),
    [
        (
            {"open_clip": {"model": "RN50", "image_size": 96}},
            {},
            "6 windows of 2 cells have only 5 places",
        ),
        ({"open_clip": {"model": "RN50", "image_size": None}}, {"per_side": 11}, "11 windows of 5 cells have only 10"),
        ({"kind": "conse"}, {"per_side": 11}, "11 windows of 5 cells have only 10 places"),
        ({"kind": "conse"}, {"per_side": 10}, None),
    ],
)
def test_windows_need_a_grid_with_room(root, teacher, windows, refusal):
    config = config_of(root, teacher=teacher, cut={"layout": "windows", "windows": windows})
    if refusal is None:
        validate_inputs(config)
    else:
        refused(config, rf"^cut\.windows\.per_side: {refusal}.*set cut\.layout: tiles$")


@pytest.mark.parametrize("section", ["teacher", "student"])
@pytest.mark.parametrize(("model", "side", "cell"), [("RN50", 31, 32), ("cutsew-tiny", 8, 32), ("ViT-B-16", 15, 16)])
def test_views_of_less_than_one_cell(root, section, model, side, cell):
    named = {"model": model, "pretrained": "demo" if model == "cutsew-tiny" else "openai"}
    refused(
        config_of(root, **{section: {"open_clip": {**named, "image_size": side}}}),
        rf"^{section}\.open_clip\.image_size: {side} is less than one cell of {model}'s grid, {cell} pixels",
    )
    validate_inputs(config_of(root, **{section: {"open_clip": {**named, "image_size": cell}}}))


ONE_CLASS = r"^classes: one class needs something to compete with, .*\(SigLIP\)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ONE_CLASS),
        ({"classes": ["cat dog bus"]}, ONE_CLASS + r" \(are commas missing in 'cat dog bus'\?\)$"),
        ({"teacher": {"kind": "conse"}}, ONE_CLASS),
        ({"prompts": {"background": ["Dog"]}}, ONE_CLASS),  # which is left out
        (SIGLIP | {"score": {"activation": "softmax"}}, ONE_CLASS),
        (SCORES | {"score": {"activation": "softmax"}}, r"^score\.activation: a softmax over one class"),
        ({"score": {"activation": "sigmoid"}}, r"^score\.activation: sigmoid needs the logit bias .* RN50x64 has none"),
        ({"score": {"activation": "sigmoid"}, "teacher": {"kind": "conse"}}, r"^score\.activation: .* conse has none"),
        (SIGLIP | {"prompts": {"background": ["sky"]}}, r"^prompts\.background: takes part in a softmax"),
        (SIGLIP | {"fuse": {"rule": "soft", "soften": "auto"}}, r"^fuse\.soften: auto looks at .* give a number"),
        (SIGLIP | {"score": {"rule": "tagclip"}}, r"^score\.rule: tagclip "),
    ],
)
def test_what_the_activation_rules_out(root, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.npz").touch()
    refused(config_of(root, **{"classes": ["dog"], **changes}), message)


def test_a_models_description_is_found_without_loading_it(tmp_path):
    assert trained_with(OpenClipTeacherConfig(open_clip={"model": "ViT-B-16-SigLIP"})) == "sigmoid"
    assert trained_with(OpenClipTeacherConfig(open_clip={"model": "cutsew-tiny-sigmoid"})) == "sigmoid"
    assert trained_with(OpenClipTeacherConfig(open_clip={"model": "RN50x64"})) == "softmax"
    assert trained_with(OpenClipTeacherConfig(open_clip={"model": "hf-hub:somebody/clip"})) is None
    for name, bias in (("softmax", None), ("sigmoid", -10)):
        (tmp_path / name).mkdir()
        described = {"model_cfg": {"embed_dim": 8, "init_logit_bias": bias}}
        (tmp_path / name / "open_clip_config.json").write_text(json.dumps(described))
        assert trained_with(OpenClipTeacherConfig(open_clip={"model": f"local-dir:{tmp_path / name}"})) == name


@pytest.mark.parametrize("error", [OSError(24, "Too many open files", "x.zarr"), OSError(23, "Too many open files")])
def test_too_many_open_files_are_told_in_one_line(error):
    assert in_one_line(error) == "too many files are open at once; type ulimit -n 1024, or open a new shell, and rerun"

"""Every config file in config/ is one that the model accepts."""

import importlib.util
import textwrap
from pathlib import Path

import pytest
import yaml

from cutsew.config import load, override
from cutsew.config.benchmarks import BENCHMARK_SPECS
from cutsew.config.loading import CUTSEW
from cutsew.demo.scenes import CLASSES, SPOKEN
from cutsew.pipeline.outputs import required_stages

CONFIG = Path(__file__).parents[3] / "config"


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_is_accepted(path):
    assert load(yaml.safe_load(path.read_text())).classes


def test_the_demo_speaks_as_its_teacher_has_read():
    demo = load(yaml.safe_load((CONFIG / "config.yaml").read_text()))
    assert demo.prompts.names == SPOKEN and demo.classes == list(CLASSES)


def test_the_demo_leaves_to_its_method_what_the_method_decides():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    assert raw["method"] == "cutsew"
    for dotted in CUTSEW:
        section, _, key = dotted.partition(".")
        assert key not in raw.get(section, {}), dotted


def test_the_demo_by_the_paper_differs_in_the_method_alone():
    demo = load(yaml.safe_load((CONFIG / "config.yaml").read_text()))
    paper = load(yaml.safe_load((CONFIG / "demo-paper.yaml").read_text()))
    assert (paper.method, paper.cut.layout, paper.cut.passes, paper.fuse.rule) == ("paper", "random", 20, "max")
    assert (paper.correct.rule, paper.targets.labels_per_image, paper.train.head) == ("sqrt", None, "adapter")
    assert (paper.select.top_k, paper.train.epochs, paper.train.schedule) == (20, 10, "cosine")
    changed = {
        name: getattr(demo, name) for name in ("method", "cut", "correct", "targets", "select", "train", "thresholds")
    }
    changed["dataset"] = paper.dataset.model_copy(update={"name": "demo"})
    assert paper.model_copy(update=changed) == demo


BENCHMARKS = ["voc2007", "voc2012", "coco2014", "nuswide"]
PAIRS = {"": ("RN50x64", "RN101", 448), "-vit": ("ViT-L-14-336", "ViT-L-14-336", 336)}


def preset(name):
    return load(yaml.safe_load((CONFIG / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_run_as_the_paper_says(name, pair):
    config = preset(name + pair)
    teacher, student = config.teacher.open_clip, config.student.open_clip
    assert (teacher.model, student.model, teacher.image_size) == PAIRS[
        pair
    ] and student.image_size == teacher.image_size
    assert teacher.pretrained == student.pretrained == "openai"
    assert (config.dataset.name, config.dataset.benchmark) == (name + pair, name)
    assert config.dataset.known() == BENCHMARK_SPECS[name, "common" if name == "nuswide" else "paper"]
    assert len(config.classes) == config.dataset.known().classes and not config.dataset.allow_incomplete
    assert config.correct.beta == (1 if name.startswith("voc") else 2)
    assert (config.cut.passes, config.fuse.alpha, config.select.top_k) == (20, 0.1, 200)
    assert (config.sew.p, config.sew.q, config.train.epochs, config.train.batch_size) == (0.6, 0.6, 1, 16)
    assert config.prompts.templates == ["a photo of {class}"] and not config.prompts.names
    assert ("download" in required_stages(config)) == (name != "nuswide")
    assert all(archive.digest for archive in config.dataset.download.archives)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_second_pair_differs_in_the_pair_alone(name):
    first, second = preset(name), preset(f"{name}-vit")
    same = {"teacher": first.teacher, "student": first.student}
    same["dataset"] = second.dataset.model_copy(update={"name": name})
    assert second.model_copy(update=same) == first


@pytest.mark.parametrize(("name", "prompts"), list(zip(BENCHMARKS, ["voc", "voc", "coco", "nuswide"], strict=True)))
def test_the_authors_wordings_fit_their_benchmark(name, prompts):
    raw = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    words = yaml.safe_load((CONFIG / "prompts" / f"{prompts}-authors.yaml").read_text())
    config = load(override(raw, words))
    assert config.prompts.templates == ["a photo contains {class}"]
    assert len(config.prompts.names) == {"voc": 4, "coco": 18, "nuswide": 0}[prompts]
    plain = yaml.safe_load((CONFIG / "prompts" / "plain.yaml").read_text())
    assert load(override(raw, plain)).prompts == preset(name).prompts


def test_digests_of_voc_are_those_of_torchvision():
    source = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    listed = (Path(source) / "datasets" / "voc.py").read_text()
    for name in ("voc2007", "voc2012"):
        for archive in preset(name).dataset.download.archives:
            assert archive.url in listed and archive.digest.removeprefix("md5:") in listed


def test_the_worked_example_of_the_guide_is_accepted():
    guide = (CONFIG / "README.md").read_text()
    example = guide.partition("    # config/farm.yaml\n")[2].partition("\n\n")[0]
    config = load(yaml.safe_load(textwrap.dedent(example)))
    assert config.dataset.name == "farm" and (config.select.top_k, config.train.head) == ("auto", "linear")


@pytest.mark.parametrize("name", ["folder", "offline"])
def test_presets_for_own_images_fit_small_folders(name):
    config = preset(name)
    assert (config.method, config.cut.layout, config.train.head) == ("cutsew", "auto", "linear")
    assert config.select.top_k == config.targets.labels_per_image == "auto"


def test_two_words_make_a_folder_run_without_a_model_hub():
    raw = yaml.safe_load((CONFIG / "folder.yaml").read_text())
    local_values = load(override(raw, {"teacher.kind": "conse", "student.kind": "timm"}))
    offline = preset("offline")
    assert (local_values.teacher.conse, local_values.student.timm) == (offline.teacher.conse, offline.student.timm)

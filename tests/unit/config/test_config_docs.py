"""config.docs: what is generated from the model is whole and in step."""

import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cutsew.config import Config, load
from cutsew.config.base import kinds_of
from cutsew.config.loading import override
from cutsew.pipeline import config_docs
from cutsew.pipeline.graph import STAGES
from cutsew.pipeline.settings_by_task import TASKS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", config_docs.generated())
def test_generated_files_are_in_step(path):
    assert ROOT.joinpath(path).read_text(encoding="utf-8") == config_docs.generated()[path], (
        f"{path} is out of date: run `make generate`"
    )


def test_every_setting_is_described():
    assert [s.name for s in config_docs.settings() if not s.description] == []


def test_settings_are_those_of_the_model():
    def names(values, prefix=""):
        for key, value in values.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")

    default = {section: next(iter(kinds.models)) for section, kinds in kinds_of(Config).items()}
    listed = [s.name for s in config_docs.settings() if not s.only or default[s.name.split(".")[0]] in s.only]
    assert listed == list(names(config_docs.defaults()))


def test_settings_of_every_kind_are_listed():
    for section, kinds in kinds_of(Config).items():
        for kind, model in kinds.models.items():
            rows = [s for s in config_docs.settings() if s.name.startswith(f"{section}.") and s.name.count(".") == 1]
            listed = [s.name.partition(".")[2] for s in rows if not s.only or kind in s.only]
            assert sorted(listed) == sorted(model.model_fields)


def test_default_yaml_loads_to_the_defaults():
    values = yaml.safe_load(config_docs.default_yaml(config_docs.defaults()))
    assert values == config_docs.defaults()
    assert load(values) == Config(classes=list(config_docs.EXAMPLE_CLASSES))


@pytest.mark.parametrize(("section", "kind"), [(s, k) for s, kinds in kinds_of(Config).items() for k in kinds.models])
def test_default_yaml_keeps_every_kind(section, kind):
    required = {"scores": {"file": "s.npz"}} if kind == "scores" else {}
    required |= {"root": "images"} if kind in ("folder", "tar", "parquet", "voc", "coco", "nus") else {}
    chosen = {section: {kinds_of(Config)[section].by: kind, **required}}
    scores = {"teacher": {"kind": "scores", "scores": {"file": "s.npz"}}, "student": {"kind": "none"}}
    values = load({"classes": ["a", "b", "c"], **chosen, **(scores if kind == "ids" else {})}).model_dump(mode="json")
    assert yaml.safe_load(config_docs.default_yaml(values)) == values


def plain(name):
    """Bring names to one form that differ in spaces, accents or case alone, which are refused together."""
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())


@settings(max_examples=40)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, unique_by=plain).filter(
        lambda names: all(name.strip() for name in names)
    ),
    st.floats(0, 100),
)
def test_default_yaml_keeps_any_value(classes, alpha):
    values = Config(classes=classes, fuse={"alpha": alpha}).model_dump(mode="json")
    assert yaml.safe_load(config_docs.default_yaml(values)) == values


def test_every_setting_that_a_stage_reads_is_there():
    known = {s.name for s in config_docs.settings()}
    assert {name for stage in STAGES.values() for name in stage.settings} <= known


def test_readers():
    assert config_docs.readers("fuse.alpha") == ["fuse"]
    assert config_docs.readers("dataset.test.fraction") == ["manifest"]
    assert config_docs.readers("compute.workers") == []
    assert config_docs.readers("prompts.wordings") == ["text"]
    assert config_docs.readers("train.labels") == ["targets", "override", "train"]
    assert config_docs.readers("sew.p") == ["train"]


def test_kinds_in_words():
    kinds = {s.name: s.kind for s in config_docs.settings()}
    assert kinds["fuse.alpha"] == "number >= 0"
    assert kinds["fuse.rule"] == "`max`, `gated`, `mean`, `cdul`, `soft`, `standard`"
    assert kinds["fuse.space"] == "`logit`, `probability`"
    assert kinds["dataset.test.fraction"] == "number > 0 and < 1 or `null`"
    assert kinds["cut.area"] == "2 x number > 0 and <= 1"
    assert kinds["prompts.templates"] == "list of text"


def test_reference_has_a_row_for_every_setting():
    rows = [line for line in config_docs.reference().splitlines() if line.startswith("| `")]
    listed = [row.split("`")[1] for row in rows]
    assert sorted(listed) == sorted(s.name for s in config_docs.settings() if not s.section)


def test_write_all(tmp_path):
    config_docs.write_all(tmp_path)
    for path, text in config_docs.generated().items():
        assert tmp_path.joinpath(path).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.title)
def test_the_example_of_a_task_is_accepted_and_is_of_its_sections(task):
    example = yaml.safe_load(task.example)
    assert set(example) - {"classes"} <= set(task.sections)
    folder = yaml.safe_load((ROOT / "config" / "folder.yaml").read_text())
    load(override(folder, example))


def test_every_section_belongs_to_one_task():
    listed = [section for task in TASKS for section in task.sections]
    assert sorted(listed) == sorted(s.name for s in config_docs.settings() if s.section and "." not in s.name)

import importlib.util
import runpy
from pathlib import Path

import pytest
import yaml

from cutsew.config.yaml_file import class_list_hints

CONFIGS = sorted(Path(__file__).parents[3].joinpath("config").glob("*.yaml"))


def hints(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return class_list_hints(path)


@pytest.mark.parametrize(
    ("text", "line", "names"),
    [
        ("classes: [cat dog, person]\n", 1, "cat, dog"),
        ("classes: [bus, cat dog person, hot dog, boat]\n", 1, "cat, dog, person"),
        ("# mine\nclasses: [cat,\n  heron\n  crane, dog]\n", 3, "heron, crane"),
        ("classes:\n  - cat\n    heron\n  - dog\n", 2, "cat, heron"),
        ("classes:\n  - cat - heron\n  - dog\n  - bus\n", 2, "cat, heron"),
        ("classes:\n  - heron, crane\n  - dog\n", 2, "heron, crane"),
        ("classes:\n  - bus\n  - heron; crane\n  - dog\n", 3, "heron, crane"),
    ],
)
def test_a_missing_comma_or_dash_draws_a_hint(tmp_path, text, line, names):
    (hint,) = hints(tmp_path, text)
    assert f"mine.yaml, line {line}: class " in hint and f"Write [{names}]" in hint and "\n" not in hint


@pytest.mark.parametrize(
    "classes",
    [
        ["cat", "dog", "traffic light", "dining table", "potted plant", "hot dog", "teddy bear", "wine glass"],
        ["person", "polar bear"],
        ["carrot cake", "apple pie", "beef tartare", "ice cream"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater, man-eating "
         "shark, Carcharodon carcharias"],
    ],
)  # fmt: skip
def test_names_of_several_words_draw_none(tmp_path, classes):
    assert hints(tmp_path, yaml.safe_dump({"classes": classes})) == []
    assert hints(tmp_path, f"classes: {classes[:1]}\n") == []


def test_imagenet_draws_none(tmp_path):
    (package,) = importlib.util.find_spec("open_clip").submodule_search_locations
    known = runpy.run_path(f"{package}/zero_shot_metadata.py")["IMAGENET_CLASSNAMES"]
    names = [name for name in known if ": " not in name]
    assert len(names) > 900 and hints(tmp_path, yaml.safe_dump({"classes": names})) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_preset_draws_one(path):
    assert class_list_hints(path) == []


@pytest.mark.parametrize("text", ["classes: ['cat dog', person]\n", 'classes:\n  - "cat dog"\n  - bus\n'])
def test_quotes_say_that_it_is_one_name(tmp_path, text):
    assert hints(tmp_path, text) == []


@pytest.mark.parametrize("text", ["", "[cat dog]\n", "classes: cat dog\n", "fuse: {alpha: 1}\n"])
def test_without_a_list_there_is_none(tmp_path, text):
    assert hints(tmp_path, text) == []


def test_json_with_tabs_draws_no_hint(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{\n\t"classes": ["dining table", "cat dog"]\n}')
    assert class_list_hints(path) == []

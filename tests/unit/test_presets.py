"""Every config file in config/ is one that the model accepts."""

from pathlib import Path

import pytest
import yaml

from cutsew.config import load
from cutsew.demo.captions import SPOKEN
from cutsew.demo.sprites import CLASSES

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_is_accepted(path):
    assert load(yaml.safe_load(path.read_text())).classes


def test_the_demo_speaks_as_its_teacher_has_read():
    demo = load(yaml.safe_load((CONFIG / "config.yaml").read_text()))
    assert demo.prompts.names == SPOKEN and demo.classes == list(CLASSES)

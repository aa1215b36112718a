"""A wrong setting ends in one line, before any job starts."""

import copy

import pytest

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fuse__alpha": -0.1}, "fuse.alpha: input should be greater than or equal to 0, not -0.1"),
        ({"fuse__alhpa": 0.1}, "fuse.alhpa: unknown setting; did you mean alpha?"),
        ({"sew__p": 1.0}, "sew.p: input should be less than 1, not 1.0"),
        ({"select__top_k": 7}, "select.top_k: 7 is more than the 6"),
        ({"classes": ["cat", "cat"]}, "classes: names cat more than once; keep one"),
        ({"classes": ["cat", "unicorn"]}, "classes: unicorn"),
        (
            {"teacher__open_clip__pretrained": "no/such.safetensors"},
            "teacher.open_clip.pretrained: no/such",
        ),
        ({"dataset__root": "nowhere"}, "dataset.root: "),
        ({"train__epochs": "many"}, "train.epochs: input should be a valid integer"),
    ],
)
def test_one_line_and_nothing_made(workflow, changes, line):
    good = copy.deepcopy(workflow.settings)
    workflow.edit(**changes)
    done = workflow.snakemake()
    workflow.settings = good
    errors = [text for text in done.stderr.splitlines() if text.startswith("cutsew: ")]
    assert done.returncode == 1
    assert len(errors) == 1 and errors[0].startswith(f"cutsew: {line}")
    assert "Traceback" not in done.stderr
    assert not workflow.results.exists()

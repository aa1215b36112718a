"""A folder in which the small workflow runs, one for each file of tests."""

import copy

import pytest
from workflow_run import SETTINGS, Workflow, draw_image


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflow")
    truth = ["path,labels"]
    for i in range(9):
        name = f"held-out/{i}.jpg" if i < 3 else f"{i}.jpg"
        draw_image(folder / "images" / name, i)
        truth.append(f"{name},{';'.join(c for c, n in zip(SETTINGS['classes'], (2, 3, 4), strict=True) if i % n == 0)}")
    (folder / "truth.csv").write_text("\n".join(truth) + "\n")
    return Workflow(folder, copy.deepcopy(SETTINGS))

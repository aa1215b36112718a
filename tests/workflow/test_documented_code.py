"""Every block of code in README, tutorials and the page of the Python API runs, on a small demo; so does the notebook.

A line of shell is run where it calls `cutsew`, and checked where it installs something or takes minutes. `photos` is
the user's own folder; its results are those of the demo.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib

import numpy as np
import pytest
import yaml
from PIL import Image
from workflow_run import ROOT, Workflow

from cutsew.config.loading import load, override
from cutsew.pipeline.snakemake_call import refuse_swallowed_targets

pytestmark = pytest.mark.workflow

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md")), ROOT / "docs/reference/python-api.md"]
BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w+)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
TAKES_MINUTES = "<!-- not run by the tests: it takes minutes -->\n"
ELSEWHERE = ("python3", "mkdir", ".", "head", "pip", "make")
"""First words of lines that set a machine up; their arguments are checked where they name something of the project."""


def blocks(kind):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found["kind"] == kind and not text[: found.start()].endswith(TAKES_MINUTES):
                code = textwrap.dedent(found["code"])
                yield pytest.param(code, id=f"{page.stem}-{text.count(chr(10), 0, found.start()) + 1}")


def lines():
    for block in blocks("sh"):
        for number, line in enumerate(filter(None, block.values[0].splitlines())):
            yield pytest.param(line, id=f"{block.id}-{number}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A run of the demo in small, and a folder of a few photos with a config file made of it."""
    settings = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    small = {"dataset": {"demo": {"train": 160, "test": 20}}, "train": {"steps": 20}, "explain": {"kind": "none"}}
    workflow = Workflow(tmp_path_factory.mktemp("documented"), override(settings, small))
    workflow.run()
    for folder in ("photos", "new-photos"):
        (workflow.folder / folder).mkdir()
        for i in range(6):
            noise = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(workflow.folder / folder / f"{i}.jpg")
    return workflow


def run(demo, *words):
    done = subprocess.run(words, cwd=demo.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cutsew(demo, *words):
    return run(demo, str(demo.binaries() / "cutsew"), *words)


@pytest.mark.parametrize("line", list(lines()))
def test_a_line_of_shell(demo, line):
    name, *words = shlex.split(line.replace("results/photos/", "results/demo/"), comments=True)
    if name == "cutsew" and words[0] == "run":
        configfile = demo.folder / "photos.yaml"
        if len(words) > 1:  # the config file is written; the run itself takes minutes
            configfile.unlink(missing_ok=True)
            said = cutsew(demo, "init", *words[1:], "--configfile", "photos.yaml")
            assert "estimate: about" in said and load(yaml.safe_load(configfile.read_text())).dataset.kind == "folder"
    elif name == "cutsew":
        said = cutsew(demo, *(words if words[0] != "export" else [*words, "--no-onnx"]))
        assert said or words[0] in ("predict", "export")
    elif name == "snakemake":
        refuse_swallowed_targets(words)
    else:
        assert name in ELSEWHERE
        if name == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        extras = re.findall(r"cutsew\[([\w,]+)\]", line)
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {extra for found in extras for extra in found.split(",")} <= set(known)


@pytest.mark.parametrize("code", list(blocks("python")))
def test_a_block_of_python(demo, code):
    code = code.replace("results/photos/", "results/demo/")
    assert run(demo, sys.executable, "-c", code).strip()


@pytest.mark.parametrize("code", list(blocks("yaml")))
def test_a_block_of_settings(code):
    load(override(yaml.safe_load((ROOT / "config" / "folder-offline.yaml").read_text()), yaml.safe_load(code)))


def test_the_notebook(demo):
    """Run its cells in order, and show the last expression of each as Jupyter does."""
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell.get("outputs")]  # kept without outputs
    script = []
    for source in sources:
        tree = ast.parse(source)
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.parse(f"print({ast.unparse(last)})").body[0]
        script.append(ast.unparse(tree))
    said = run(demo, sys.executable, "-c", "\n".join(script))
    assert "180 images, 20 classes" in said and "zero_shot" in said and "probability" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_escapes_the_tests(page):
    """Each is of a kind that is run, or the output of one; none is left open, without a kind or indented."""
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert {block["kind"] for block in found} <= {"sh", "python", "yaml", "text"}
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE))
    outside = BLOCK.sub("", text)
    assert not re.search(r"\n\n {4}(?:cutsew|snakemake|pip|make|import|from) ", outside)
    for block in found:
        if block["kind"] == "python":  # also those that take minutes
            ast.parse(textwrap.dedent(block["code"]))


def test_there_is_code():
    assert len(list(lines())) > 25 and len(list(blocks("python"))) >= 4 and len(list(blocks("yaml"))) >= 2

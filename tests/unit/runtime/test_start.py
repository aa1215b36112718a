"""Jobs start quickly: a stage imports what it needs, and its help next to nothing."""

import subprocess
import sys

HELP = """
import contextlib, io, sys
from cutsew.cli import app
for name in [None, "fuse", "score", "correct", "select", "seal"]:
    sys.argv = ["cutsew", *([name] if name else []), "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app()
    assert (name or "fuse") in said.getvalue()
    heavy = {"torch", "pandas", "pyarrow", "zarr", "sklearn", "scipy", "rich"} & set(sys.modules)
    assert not heavy, (name, heavy)
"""

WITHOUT_TORCH = """
import importlib, sys
from cutsew.pipeline.graph import STAGES
WITH = {"tiny_clip", "text", "encode", "tagclip", "train", "predict", "tiles", "ensemble", "explain"}
for name in sorted(STAGES.keys() - WITH - {"reference_train", "reference_predict"}):
    importlib.import_module(f"cutsew.stages.{name}")
    assert "torch" not in sys.modules, name
"""

CLASSIFIER = """
import sys
import cutsew.inference.classifier
import cutsew.stages.evaluate
assert "sklearn" not in sys.modules
"""


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_help_imports_no_heavy_library():
    run(HELP)


def test_a_classifier_imports_no_library_that_only_training_and_measuring_need():
    run(CLASSIFIER)


def test_stages_without_a_network_import_no_torch():
    run(WITHOUT_TORCH)

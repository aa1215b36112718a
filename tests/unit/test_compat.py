import subprocess
import sys

from cutsew.compat import import_torchvision


def test_torchvision_imports_and_transforms():
    torchvision = import_torchvision()
    assert torchvision.__name__ == "torchvision"
    assert import_torchvision() is torchvision
    from torchvision.transforms import functional

    assert callable(functional.resize)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_compiler_is_imported_when_it_is_called():
    run("""
import sys
from cutsew.compat import import_torchvision
import_torchvision()
import open_clip, timm
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
from torchvision.ops import roi_align
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported
assert supported == is_compile_supported("cpu")
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
""")


def test_other_names_of_the_compiler_are_its_own():
    run("""
import sys
from cutsew.quick_imports import compiler_when_called
with compiler_when_called():
    from torch._dynamo.utils import counters
from torch._dynamo import utils
assert counters is utils.counters and sys.modules["torch._dynamo.utils"] is utils
""")


def test_open_clip_and_timm_import_after_it_in_a_fresh_process():
    run("from cutsew.compat import import_torchvision; import_torchvision(); import open_clip, timm")

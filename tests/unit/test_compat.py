import subprocess
import sys

from cutsew.compat import import_torchvision


def test_torchvision_imports_and_transforms():
    torchvision = import_torchvision()
    assert torchvision.__name__ == "torchvision"
    assert import_torchvision() is torchvision
    from torchvision.transforms import functional

    assert callable(functional.resize)


def test_open_clip_and_timm_import_after_it_in_a_fresh_process():
    code = "from cutsew.compat import import_torchvision; import_torchvision(); import open_clip, timm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

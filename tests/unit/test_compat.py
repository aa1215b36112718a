import json
import subprocess
import sys

import pytest

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
assert "timm" not in sys.modules
from cutsew import clip_models
from cutsew.backbones import timm
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
from torchvision.ops import roi_align
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported
assert supported == is_compile_supported("cpu")
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
""")


def test_text_towers_that_need_transformers_find_it(tmp_path):
    """It is hidden from open_clip until one is built."""
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 32, **sizes}))
    text = {"hf_model_name": str(tmp_path), "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    named = {"embed_dim": 4, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "test-roberta.json").write_text(json.dumps(named))
    run(f"""
import sys
from cutsew import clip_models
assert "transformers" not in sys.modules
import open_clip
open_clip.add_model_config({str(tmp_path / "test-roberta.json")!r})
from cutsew.config.base import OpenClipModel, Preprocessing
photos = Preprocessing(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic")
named = OpenClipModel(model="test-roberta", pretrained="none", quick_gelu=False, preprocessing=photos)
clip = clip_models.build(named, "teacher.open_clip", weights=False)
import torch
with torch.no_grad():
    assert clip.model.encode_text(torch.ones(2, 5, dtype=torch.long)).shape == (2, 4)
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

import json
import subprocess
import sys

import pytest

from cutsew.runtime.lazy_imports import import_torchvision


def test_torchvision_imports_and_transforms():
    torchvision = import_torchvision()
    assert torchvision.__name__ == "torchvision"
    assert import_torchvision() is torchvision
    from torchvision.transforms import functional

    assert callable(functional.resize)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_text_towers_that_need_transformers_find_it(tmp_path):
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 32, **sizes}))
    text = {"hf_model_name": str(tmp_path), "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    named = {"embed_dim": 4, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "test-roberta.json").write_text(json.dumps(named))
    run(f"""
import sys
from cutsew.models import clip as clip_models
import open_clip
open_clip.add_model_config({str(tmp_path / "test-roberta.json")!r})
from cutsew.config.base import OpenClipModelConfig, PreprocessingConfig
images = PreprocessingConfig(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic")
named = OpenClipModelConfig(model="test-roberta", pretrained="none", quick_gelu=False, preprocessing=images)
clip = clip_models.load_clip(named, "teacher.open_clip", weights=False)
import torch
with torch.no_grad():
    assert clip.model.encode_text(torch.ones(2, 5, dtype=torch.long)).shape == (2, 4)
""")


def test_open_clip_and_timm_import_after_it_in_a_fresh_process():
    run("from cutsew.runtime.lazy_imports import import_torchvision; import_torchvision(); import open_clip, timm")

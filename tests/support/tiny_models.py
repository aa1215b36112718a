"""Tiny open_clip models with random weights, saved as local checkpoints."""

import json

import torch
from safetensors.torch import save_file
from torch import nn

from cutsew.runtime.lazy_imports import import_torchvision

import_torchvision()
import open_clip  # noqa: E402

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {
    "test-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "test-vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}
# A name with "siglip" in it makes open_clip fetch its tokenizer.
VISION["test-sigmoid"] = VISION["test-vit"]
SIGMOID = {"custom_text": True, "init_logit_bias": -10}
"""What open_clip's configs of SigLIP have and those of CLIP lack."""
SIZE = {name: vision["image_size"] for name, vision in VISION.items()}
WIDTH = {"test-resnet": 256, "test-vit": 32, "test-sigmoid": 32}
"""Channels of the features."""


def register(folder):
    for name, vision in VISION.items():
        if name not in open_clip.list_models():
            path = folder / f"{name}.json"
            described = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
            path.write_text(json.dumps(described | (SIGMOID if name == "test-sigmoid" else {})))
            open_clip.add_model_config(path)


def checkpoint(folder, name, suffix=".safetensors", seed=0):
    """Save a random model and its open_clip_config.json; return the path and the model.

    BatchNorm statistics are random too.
    """
    register(folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(name).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    images = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": images}))
    path = folder / f"{name}{suffix}"
    state = model.state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    return path, model


WORDS = ["[PAD]", "[UNK]", "[EOS]", "a", "image", "of", "cat", "dog"]


def tokenizer(folder):
    """Save a tokenizer of eight words in the form of the hub."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 2)])
    words.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def model_folder(folder, *, own_tokenizer=True, seed=0, **text):
    """Save a random model as the hub has it: configuration, weights and, if asked for, a tokenizer of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {**TEXT, **({"hf_tokenizer_name": "somebody/words"} if own_tokenizer else {}), **text}
    if own_tokenizer:
        text |= {"vocab_size": len(WORDS), "pool_type": "last", "no_causal_mask": True}
        tokenizer(folder)
    described = {"embed_dim": 24, "vision_cfg": VISION["test-vit"], "text_cfg": text, "custom_text": True}
    images = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": described, "preprocess_cfg": images}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}", model

"""The tiny CLIP: open_clip's own model class at a size that two cores train in six minutes.

Its weights ship packed: float16, and of the token embedding only the rows that captions use. `state_dict` expands them.
Photos are normalised with CLIP's usual mean and standard deviation (`open_clip.OPENAI_DATASET_MEAN` and `_STD`).
"""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cutsew.artefacts.atomic import replacing
from cutsew.compat import import_torchvision
from cutsew.demo.captions import all_captions
from cutsew.errors import UserError

import_torchvision()
import open_clip  # noqa: E402

MODEL = "cutsew-tiny"
"""The name under which open_clip knows the model once `register` has run."""

SIGMOID = "cutsew-tiny-sigmoid"
"""The same towers with a logit bias, as SigLIP has one: a teacher that answers by a sigmoid and needs no model hub."""

SIGMOID_SCALE, SIGMOID_BIAS = 11.4352, -11.6407
"""Of SIGMOID with the shipped weights: the two numbers of least sigmoid loss over 2,048 captioned scenes (seed 5) and
all their captions, the towers being left as they are."""

CONFIG = Path(__file__).with_name(f"{MODEL}.json")
SHIPPED = Path(__file__).with_name(f"{MODEL}.safetensors")
"""The weights that come with the package; `cutsew tiny_clip` with its defaults makes them."""

NORMALISATION = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
"""Mean and standard deviation of the three channels, for pixels in [0, 1]."""

_EMBEDDING = "token_embedding.weight"
_ROWS = "token_embedding.rows"


def register() -> None:
    """Make open_clip know `cutsew-tiny` and `cutsew-tiny-sigmoid`; calling it again changes nothing."""
    for model in (MODEL, SIGMOID):
        if model not in open_clip.list_models():
            open_clip.add_model_config(CONFIG.with_name(f"{model}.json"))


def build(path: Path | None = SHIPPED) -> nn.Module:
    """Return an open_clip `CLIP` in eval mode, float32, on the CPU.

    Args:
        path: packed weights; None for fresh ones, drawn from torch's global generator.

    Raises:
        UserError: the file is no packed tiny CLIP.

    """
    model: nn.Module = open_clip.CLIP(**json.loads(CONFIG.read_text()))
    if path is not None:
        model.load_state_dict(state_dict(path))
    return model.eval()


def tokens(texts: list[str]) -> Tensor:
    """Return the tokens of texts, (n, 16) int64, padded with zeros."""
    found: Tensor = _tokenizer()(texts)
    return found


def pack(model: nn.Module, path: Path) -> None:
    """Write a model's weights as the shipped file, atomically.

    Floating-point tensors become float16, except single numbers; of the token embedding only the rows that captions
    use are kept, with their indices.
    """
    rows = torch.unique(tokens(all_captions()))
    packed = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    packed[_EMBEDDING] = packed[_EMBEDDING][rows]
    packed = {name: (value.half() if _is_big_float(value) else value).contiguous() for name, value in packed.items()}
    packed[_ROWS] = rows.to(torch.int32)
    with replacing(path) as draft:
        draft.write_bytes(save(packed, metadata={"model": MODEL}))


def state_dict(path: Path = SHIPPED) -> dict[str, Tensor]:
    """Expand packed weights to the model's full float32 state dict; rows of unused tokens are zero.

    Raises:
        UserError: the file is absent or no packed tiny CLIP.

    """
    try:
        with safe_open(path, framework="pt") as file:
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rows, kept = packed.pop(_ROWS).long(), packed[_EMBEDDING].float()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; make it with: cutsew tiny_clip {path}") from None
    except (SafetensorError, KeyError):
        raise UserError(f"{path}: not a packed tiny CLIP; make one with: cutsew tiny_clip {path}") from None
    embedding = torch.zeros(json.loads(CONFIG.read_text())["text_cfg"]["vocab_size"], kept.shape[1])
    embedding[rows] = kept
    expanded = {name: value.float() if value.is_floating_point() else value for name, value in packed.items()}
    return {**expanded, _EMBEDDING: embedding}


def sigmoid_state_dict() -> dict[str, Tensor]:
    """Return the state dict of `cutsew-tiny-sigmoid`: the shipped weights with its own scale and bias."""
    return {
        **state_dict(),
        "logit_scale": torch.tensor(math.log(SIGMOID_SCALE)),
        "logit_bias": torch.tensor(SIGMOID_BIAS),
    }


@cache
def _tokenizer() -> Callable[[list[str]], Tensor]:
    register()
    return open_clip.get_tokenizer(MODEL)  # type: ignore[no-any-return]


def _is_big_float(value: Tensor) -> bool:
    return value.is_floating_point() and value.ndim > 0

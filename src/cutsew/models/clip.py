"""open_clip models from a tag or a local checkpoint.

- Fitting a position embedding to another image size.
- Building open_clip models from a tag or a local checkpoint, for teachers and students alike.

What open_clip leaves to its caller is done here: position embeddings of ResNets are resized too (open_clip resizes
ViTs' only), and OpenAI's weights get the QuickGELU that they were trained with (open_clip only warns).
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cutsew.config import named_models
from cutsew.config.base import OpenClipModelConfig
from cutsew.config.cutting import STRIDE, not_whole_cells
from cutsew.config.named_models import OFFLINE, OPEN_CLIP_CONFIG
from cutsew.errors import UserError, first_line
from cutsew.models import checkpoints
from cutsew.models.preprocessing import (
    OPENAI_SIZES,
    TINY,
    TINY_SIGMOID,
    Preprocessing,
    Source,
    from_config,
    of_open_clip,
)
from cutsew.runtime.lazy_imports import gc_frozen, import_torchvision

import_torchvision()
with gc_frozen():
    from timm.layers.pos_embed import resample_abs_pos_embed


def resize_position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a square grid of position embeddings bicubically, as timm does.

    The first row belongs to the class token (ViT) or the mean token (attention pool of a CLIP ResNet): it has no place
    in the grid and is kept as it is.

    Args:
        table: (1 + n * n, D), the token's row first.
        grid: height and width of the wanted grid, in cells.

    Returns:
        (1 + height * width, D) of the table's dtype; the table itself where it fits.

    Raises:
        ValueError: the rows after the first are no square.

    """
    side = math.isqrt(len(table) - 1)
    if side * side != len(table) - 1:
        raise ValueError(f"{len(table)} position embeddings are no token and a square grid")
    if (side, side) == grid:
        return table
    resized: Tensor = resample_abs_pos_embed(table[None], list(grid), [side, side])[0]
    return resized


def at_side(model: nn.Module, side: int, name: str) -> nn.Module:
    """Return an open_clip model whose visual tower takes square images of another side.

    Its position embeddings are resized to the grid of that side: those of a vision transformer or of a CLIP ResNet's
    attention pool as open_clip resizes a checkpoint's, those of a timm trunk by timm.

    Args:
        model: open_clip model with a `visual` tower; it is left as it is, and shares all other weights.
        side: in pixels.
        name: of the model, for messages.

    Raises:
        UserError: the side is not a multiple of the tower's patch, or the tower takes one size only.

    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    resized = deepcopy(model, shared)
    visual: Any = resized.get_submodule("visual")
    refusal = not_whole_cells(side, _cell(visual), name)
    if refusal is not None:
        raise UserError(refusal)
    try:
        if hasattr(visual, "trunk"):
            visual.set_input_size(side)
        else:
            owner = visual.attnpool if hasattr(visual, "layer4") else visual
            grid = side // _cell(visual)
            table = resize_position_embedding(owner.positional_embedding.detach(), (grid, grid))
            owner.positional_embedding = nn.Parameter(table, requires_grad=False)
        example = next(visual.parameters())
        with torch.no_grad():
            visual(torch.zeros(1, 3, side, side, dtype=example.dtype, device=example.device))
    except (AttributeError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"cut.tiles: {name}'s tower takes no images of {side} pixels ({first_line(error)}); set side: null"
        ) from None
    return resized


def _cell(visual: Any) -> int:  # noqa: ANN401 - open_clip's towers share no type
    """Return the side in pixels of a tower's patch, or of a cell of a CLIP ResNet's grid; 1 where any side will do."""
    if hasattr(visual, "layer4"):
        return STRIDE
    size = getattr(visual, "patch_size", None) or getattr(getattr(visual, "trunk", None), "patch_embed", None)
    size = getattr(size, "patch_size", size)
    if isinstance(size, tuple):
        size = size[0]
    return size if isinstance(size, int) else 1


import_torchvision()
with gc_frozen():
    import open_clip
from open_clip.convert import convert_state_dict  # noqa: E402
from open_clip.model import convert_to_custom_text_state_dict, resize_text_pos_embed  # noqa: E402
from open_clip.pretrained import download_pretrained, get_pretrained_cfg  # noqa: E402

_POSITIONS = ("visual.positional_embedding", "visual.attnpool.positional_embedding")


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model with what its input needs.

    Attributes:
        model: in eval mode, float32, on the CPU, without gradients.
        preprocessing: of images.
        quick_gelu: whether its towers compute QuickGELU instead of GELU.
        image_size: side of its square input in pixels.
        width: D, of its embeddings.
        architecture: description of a model by name, with what its visual tower needs; None for open_clip's own.
        logit_bias: added to scale * cosine by models that were trained with a sigmoid loss (SigLIP and kin); None for
            others, and where the weights hold none.

    """

    model: nn.Module
    preprocessing: Preprocessing
    quick_gelu: bool
    image_size: int
    width: int
    architecture: dict[str, Any] | None
    logit_bias: float | None


def load_clip(settings: OpenClipModelConfig, section: str, *, weights: bool = True) -> LoadedClip:
    """Build an open_clip model.

    Args:
        settings: model, weights and image size.
        section: dotted name of the settings' section, for messages.
        weights: load them; False leaves random ones, for a caller that has its own.

    Raises:
        UserError: an unknown model or tag, weights that cannot be fetched or do not fit, or nothing says how images are
            preprocessed for them.

    """
    model, pretrained = settings.model, settings.pretrained
    name, config, source = _described(settings, section)
    expected = of_open_clip(settings, section, source)
    image_size = settings.image_size or expected.image_size
    state = _state_dict(settings, section) if weights else None
    is_timm = "timm_model_name" in config["vision_cfg"]  # timm's towers change size after loading
    with _quiet(), torch.random.fork_rng(devices=[]), checkpoints.skip_weight_init() if weights else nullcontext():
        try:
            built = open_clip.create_model(
                name,
                load_weights=False,
                pretrained_text=False,
                quick_gelu=expected.quick_gelu,
                force_image_size=None if is_timm else image_size,
            )
        except (OSError, RuntimeError, ImportError, ValueError, TypeError, LookupError, AssertionError) as error:
            raise UserError(f"{section}.model: {model} cannot be built ({first_line(error)})") from None
    if state is not None:
        of = f"{pretrained} of {model}" if pretrained else model
        try:
            fitted = _fitted(state, built, of, section)
        except (KeyError, IndexError, RuntimeError, ValueError, AssertionError) as error:  # open_clip's own conversions
            raise UserError(
                f"{section}.pretrained: {of}: not the weights of this model ({first_line(error)});"
                " give the checkpoint of the model that is set"
            ) from None
        checkpoints.load(built, fitted, of, f"{section}.pretrained")
    if is_timm and image_size is not None:
        built.visual.set_input_size(image_size)
    size = image_size or built.visual.preprocess_cfg["size"]
    side = size if isinstance(size, int) else size[0]
    frozen = built.eval().requires_grad_(False)
    architecture = _visual_only(config) if source is not None else None
    bias = float(built.logit_bias.item()) if state is not None and "logit_bias" in state else None
    return LoadedClip(
        frozen, expected.preprocessing, expected.quick_gelu, side, int(config["embed_dim"]), architecture, bias
    )


def tokenizer(settings: OpenClipModelConfig, section: str) -> Callable[[list[str]], Tensor]:
    """Return the model's own tokenizer: from n texts to their (n, L) tokens.

    Args:
        settings: model and weights; a tokenizer next to local ones is taken, so no hub is contacted.
        section: dotted name of the settings' section, for messages.

    Raises:
        UserError: it cannot be had; the tokenizer, when it gives tokens that the model's text tower has not.

    """
    name, config, _ = _described(settings, section)
    try:
        with _quiet():
            result: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(name)
    except Exception as error:  # transformers and the hub's client raise dozens of kinds
        raise UserError(
            f"{section}.model: the tokenizer of {settings.model} cannot be loaded ({first_line(error)}); put its files"
            f" (tokenizer.json, tokenizer_config.json) next to local weights; {OFFLINE}"
        ) from None
    size = config["text_cfg"].get("vocab_size")

    def tokenize(texts: list[str]) -> Tensor:
        tokens = result(texts)
        if size is not None and int(tokens.max()) >= size:
            raise UserError(
                f"{section}.model: the tokenizer of {settings.model} produces token {int(tokens.max())}, but the text"
                f" tower has only {size} tokens, so it belongs to another model; put the model's own there"
            )
        return tokens

    return tokenize


def _described(settings: OpenClipModelConfig, section: str) -> tuple[str, dict[str, Any], Source | None]:
    """Find the description of a model.

    Returns:
        The name by which open_clip builds it, its description (model_cfg), and what the configuration of a model by
        name says about images.

    """
    model, source = settings.model, None
    if model in (TINY, TINY_SIGMOID):
        from cutsew.demo import tiny_clip  # noqa: PLC0415

        tiny_clip.register()
    if named_models.is_named(model):
        content = named_models.read_config(model, f"{section}.model")
        original, source = content["model_cfg"], from_config(content, f"{model}/{OPEN_CLIP_CONFIG}")
    else:
        original = open_clip.get_model_config(model)
        if original is None:
            raise UserError(f"{section}.model: open_clip has no model {model}; see open_clip.list_models()")
    local = settings.pretrained if settings.pretrained and checkpoints.is_path(settings.pretrained) else None
    named_models.check(model, original, local, f"{section}.model")
    config = named_models.localized(original, named_models.tokenizer_folder(model, local))
    name = model if config == original and source is None else _registered(config)
    return name, config, source


def _visual_only(config: dict[str, Any]) -> dict[str, Any]:
    """Describe a model with the smallest text tower, for a student, which has none."""
    reduced: dict[str, Any] = {
        name: config[name] for name in ("embed_dim", "vision_cfg", "quick_gelu") if name in config
    }
    return {**reduced, "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}}


def _registered(config: dict[str, Any]) -> str:
    """Make a description known to open_clip, under a name made of its content."""
    text = json.dumps(config, sort_keys=True)
    name = f"cutsew-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if open_clip.get_model_config(name) is None:
        with TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.json")
            path.write_text(text)
            open_clip.add_model_config(path)
    return name


def _state_dict(settings: OpenClipModelConfig, section: str) -> dict[str, Tensor]:
    model, pretrained, setting = settings.model, settings.pretrained, f"{section}.pretrained"
    if pretrained is None:
        setting = f"{section}.model"
        return checkpoints.read_state_dict(named_models.weights_file(model, setting), setting)
    if model in (TINY, TINY_SIGMOID):
        from cutsew.demo import tiny_clip  # noqa: PLC0415

        if pretrained == "demo":
            return tiny_clip.state_dict() if model == TINY else tiny_clip.sigmoid_state_dict()
        state = checkpoints.read_state_dict(Path(pretrained), setting)
        packed = "token_embedding.rows" in state
        return tiny_clip.state_dict(Path(pretrained)) if packed else state
    if checkpoints.is_path(pretrained):
        return checkpoints.read_state_dict(Path(pretrained), setting)
    try:
        with _quiet(logging.ERROR):
            path = Path(download_pretrained(get_pretrained_cfg(model, pretrained)))
    except Exception as error:  # the hub's client raises dozens of kinds
        raise UserError(
            f"{setting}: {pretrained} of {model} cannot be downloaded ({first_line(error)}); give a local file;"
            f" {OFFLINE}"
        ) from None
    return checkpoints.read_state_dict(path, setting)


def _fitted(state: dict[str, Tensor], model: nn.Module, source: str, section: str) -> dict[str, Tensor]:
    """Bring a checkpoint into the model's form: open_clip's own conversions, and resized position embeddings."""
    state = {name: value for name, value in state.items() if name not in OPENAI_SIZES}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    state.pop("text.transformer.embeddings.position_ids", None)
    if "logit_bias" in expected:
        state.setdefault("logit_bias", torch.zeros_like(expected["logit_bias"]))
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in expected:
            state[name] = state[name].reshape(expected[name].shape)
    resize_text_pos_embed(state, model)
    for name in _POSITIONS:
        if name in state and name in expected and len(state[name]) != len(expected[name]):
            side = round((len(expected[name]) - 1) ** 0.5)
            try:
                state[name] = resize_position_embedding(state[name], (side, side))
            except ValueError as error:
                raise UserError(f"{section}.pretrained: {source}: {name}: {error}; give another checkpoint") from None
    return state


@contextmanager
def _quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Keep open_clip's many messages on the root logger away from the user."""
    before = logging.root.manager.disable
    logging.disable(max(level, before))
    try:
        yield
    finally:
        logging.disable(before)

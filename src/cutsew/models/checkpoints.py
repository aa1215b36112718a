"""Reading weights from a local file without running any code that it holds."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cutsew.errors import UserError
from cutsew.models import torch_files
from cutsew.models.torch_files import Record, UnreadableError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".json")
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "student", "teacher"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "params_ema"),
)
"""Entries of training checkpoints that hold the weights."""

PREFIXES = ("module.", "model.", "clip.", "clip_model.", "backbone.", "net.")
"""Of names, where all have it: from DataParallel, Lightning and wrapping modules."""

WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Anywhere in names: from torch.compile, FSDP and activation checkpointing."""

_OTHER_FILES = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights; run git lfs pull in its repository",
    b"<": "is a web page, not the weights; the download failed or needs a login, so fetch it again",
    b"\x1f\x8b": "is an archive (gzip); unpack it and give the weights in it",
    b"\x89HDF": "is an HDF5 file; convert it to safetensors",
    b"GGUF": "is a GGUF file; give the weights in safetensors or by torch.save",
}
_TRANSFORMERS = ("vision_model.", "text_model.")


def is_path(pretrained: str) -> bool:
    """Check whether a `pretrained` setting names a file rather than a tag."""
    return Path(pretrained).suffix in SUFFIXES or "/" in pretrained or Path(pretrained).is_file()


def read_state_dict(path: Path, setting: str) -> dict[str, Tensor]:
    """Read a model's tensors, running no code that the file holds.

    Read are safetensors, one file or the index of several; files by torch.save, of whatever age: state dicts, training
    checkpoints and whole modules; and TorchScript archives. The content decides, not the suffix. Of a training
    checkpoint the one entry of weights is taken (`WRAPPERS`), what is no tensor is left out, and prefixes that
    wrapping modules leave in names are removed (`PREFIXES`, `WITHIN`).

    Args:
        path: the file.
        setting: dotted name of the setting that names it, for messages.

    Raises:
        UserError: no such file, of another kind, damaged, without weights or with several sets of them, or a pickle
            that has anything called but what rebuilds tensors and plain values.

    """
    try:
        return _plainly_named(_unwrapped(_read(path)))
    except UnreadableError as refused:
        raise UserError(f"{setting}: {path}: {refused}") from None
    except RecursionError:  # an entry that holds itself
        raise UserError(f"{setting}: {path}: is damaged; download it again") from None
    except OSError as error:
        raise UserError(f"{setting}: {path}: cannot be read ({error.strerror or error}); make it readable") from None


def load(model: nn.Module, state: Mapping[str, Tensor], source: str, setting: str) -> None:
    """Copy tensors into a model, all of them and no others, save buffers that the model computes itself.

    Args:
        model: the module.
        state: its tensors by name, in any floating dtype.
        source: where they come from, for messages.
        setting: dotted name of the setting, for messages.

    Raises:
        UserError: names or shapes differ.

    """
    expected = model.state_dict()
    computed = {name for name, _ in model.named_buffers()} - expected.keys()
    tensors = {name: value for name, value in state.items() if name not in computed}
    wrong = sorted(
        name for name in expected.keys() | tensors.keys() if _form(expected.get(name)) != _form(tensors.get(name))
    )
    if wrong:
        first = (
            f"{wrong[0]} is {_said(tensors.get(wrong[0]), 'missing')}, should be "
            f"{_said(expected.get(wrong[0]), 'absent')}"
        )
        way_out = "give the checkpoint of the model that is set"
        if any(name.startswith(_TRANSFORMERS) for name in tensors):
            way_out = "its names are those of Hugging Face transformers; give the model in open_clip's form"
        elif not expected.keys() & tensors.keys():
            way_out = f"no name of the file ({min(tensors)}, ...) is one of the model; {way_out}"
        raise UserError(
            f"{setting}: {source}: not the weights of this model, {len(wrong)} tensors differ ({first}); {way_out}"
        )
    model.load_state_dict(tensors)


@contextmanager
def skip_weight_init() -> Iterator[None]:
    """Build models without initializing their weights, which `load` overwrites: torch.nn.init is disabled.

    Buys CPU time at the start of each job with a network: 5.5 s for RN50x64, 1.8 s for ViT-L/14 and 0.9 s for ViT-B/32,
    next to 4.5 s for everything else. A model on the meta device would lose its non-persistent buffers.
    """
    originals = {name: function for name, function in vars(nn.init).items() if name.endswith("_") and name[0] != "_"}
    for name in originals:
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(nn.init, name, function)


def weights_digest(*models: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all tensors of some modules."""
    digest = hashlib.sha256()
    for model in models:
        for name, value in sorted(model.state_dict().items()):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _form(tensor: Tensor | None) -> tuple[object, ...] | None:
    """Return what has to agree: the shape, and whether the numbers are floating; not their width."""
    return None if tensor is None else (tuple(tensor.shape), tensor.is_floating_point())


def _said(tensor: Tensor | None, absent: str) -> str:
    if tensor is None:
        return absent
    whole = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{whole}"


def _read(path: Path) -> object:
    if path.is_dir():
        raise UnreadableError("is a folder; give the file of weights in it, or set the model to local-dir:<folder>")
    if not path.is_file():
        raise UnreadableError("no such file; give the path of a checkpoint that is there")
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise UnreadableError("is empty; download it again")
    # First, since the length of its header, with which a safetensors file starts, may look like any other file's start.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return _read_safetensors(path)
    reason = next((text for start, text in _OTHER_FILES.items() if head.lstrip().startswith(start)), None)
    if reason is not None:
        raise UnreadableError(reason)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if head.startswith((torch_files.ZIP, torch_files.PICKLE)):
        return torch_files.read(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    raise UnreadableError("is not a checkpoint that can be read; give safetensors, or a file by torch.save")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UnreadableError(f"not a complete safetensors file ({error}); download it again") from None


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the files that an index lists, which lie next to it."""
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = [index.parent / Path(name).name for name in sorted(set(shard_of.values()))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnreadableError(
            "is no index of weights; give model.safetensors.index.json or the file of weights"
        ) from None
    state: dict[str, Tensor] = {}
    for shard in shards:
        try:
            state.update(_unwrapped(_read(shard)))
        except UnreadableError as refused:
            raise UnreadableError(f"{shard.name}, which it lists: {refused}") from None
    missing = sorted(shard_of.keys() - state.keys())
    if missing:
        raise UnreadableError(f"lists {missing[0]}, which is in none of its files; download them again")
    return state


def _unwrapped(content: object) -> dict[str, Any]:
    """Return a state dict as it is, and of a checkpoint the one entry that holds weights."""
    if isinstance(content, Record) and content.is_module:
        return torch_files.state_of(content)
    if not isinstance(content, dict):
        raise UnreadableError("holds no state dict of tensors; save the model's state_dict() there")
    holding = [str(name) for name, value in content.items() if _holds_weights(value)]
    entries = [name for name in holding if name in WRAPPERS]
    if not entries and any(isinstance(value, Tensor) for value in content.values()):
        return content
    entries = entries or holding
    if len(entries) > 1:
        raise UnreadableError(
            f"holds several sets of weights ({', '.join(sorted(entries))[:200]});"
            " save the one that you mean to a file of its own"
        )
    if not entries:
        raise UnreadableError("holds no state dict of tensors; save the model's state_dict() there")
    return _unwrapped(content[entries[0]])


def _holds_weights(value: object, depth: int = 3) -> bool:
    if isinstance(value, Record):
        return value.is_module
    return isinstance(value, dict) and any(
        isinstance(part, Tensor) or (depth and name in WRAPPERS and _holds_weights(part, depth - 1))
        for name, part in value.items()
    )


def _plainly_named(tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Keep the tensors, under names without what wrapping modules put in."""
    state = {}
    for name, value in tensors.items():
        plain = str(name)
        for part in WITHIN:
            plain = plain.replace(part, "")
        if isinstance(value, Tensor):
            if plain in state:
                raise UnreadableError(f"holds {plain} twice; save the model's state_dict() alone")
            state[plain] = value
    prefix = next((part for part in PREFIXES if all(name.startswith(part) for name in state)), None)
    return state if prefix is None else _plainly_named({name.removeprefix(prefix): state[name] for name in state})

"""Reading weights from a local file without running any code that it holds."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cutsew.errors import UserError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_SIZES = ("input_resolution", "context_length", "vocab_size")


def is_path(pretrained: str) -> bool:
    """Tell whether a `pretrained` setting names a file rather than a tag."""
    return Path(pretrained).suffix in SUFFIXES or "/" in pretrained or Path(pretrained).is_file()


def read_state_dict(path: Path, setting: str) -> dict[str, Tensor]:
    """Read a model's tensors from .safetensors, or from .pt, .pth or .bin with torch's safe unpickler.

    A training checkpoint's `state_dict` entry and a `module.` prefix are unwrapped.

    Args:
        path: the file.
        setting: dotted name of the setting that names it, for messages.

    Raises:
        UserError: no such file, of another kind, or a pickle that holds more than tensors.

    """
    if not path.is_file():
        raise UserError(f"{setting}: {path}: no such file; give the path of a checkpoint that is there")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{setting}: {path}: not a checkpoint that can be read; give one of {', '.join(SUFFIXES)}")
    found = _read_safetensors(path, setting) if path.suffix == ".safetensors" else _unpickle(path, setting)
    wrapped = found.get("state_dict")
    found = wrapped if isinstance(wrapped, dict) else found
    state = {str(name).removeprefix("module."): value for name, value in found.items() if name not in _SIZES}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{setting}: {path}: holds no state dict of tensors; save the model's state_dict() there")
    return state


def load(model: nn.Module, state: Mapping[str, Tensor], source: str, setting: str) -> None:
    """Copy tensors into a model, all of them and no others.

    Args:
        model: the module.
        state: its tensors by name, in any floating dtype.
        source: where they come from, for messages.
        setting: dotted name of the setting, for messages.

    Raises:
        UserError: names or shapes differ.

    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        first = f"{wrong[0]} is {given.get(wrong[0], 'missing')}, should be {wanted.get(wrong[0], 'absent')}"
        raise UserError(
            f"{setting}: {source}: not the weights of this model, {len(wrong)} tensors differ ({first});"
            " give the checkpoint of the model that is set"
        )
    model.load_state_dict(state)


@contextmanager
def left_empty() -> Iterator[None]:
    """Leave the weights of models that are built meanwhile as they come: for those that `load` fills whole.

    Drawing random ones, which `load` would overwrite, takes 5 s of RN50x64.
    """
    kept = {name: function for name, function in vars(nn.init).items() if name.endswith("_") and name[0] != "_"}
    for name in kept:
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


def weights_digest(*models: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all tensors of some modules."""
    digest = hashlib.sha256()
    for model in models:
        for name, value in sorted(model.state_dict().items()):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path, setting: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UserError(f"{setting}: {path}: not a whole safetensors file ({error}); fetch it again") from None


def _unpickle(path: Path, setting: str) -> dict[str, Tensor]:
    """Load a pickle of tensors. Anything that would need code to run is refused, TorchScript archives included."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what it warns of is refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{setting}: {path}: cannot be read ({error.strerror or error}); make it readable") from None
    except Exception:  # the unpickler answers damage with nearly any
        raise UserError(
            f"{setting}: {path}: damaged, or holds more than tensors, which could run code on loading;"
            " save its state_dict() as .safetensors and give that"
        ) from None
    return found if isinstance(found, dict) else {}

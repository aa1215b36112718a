"""CLIP models that come with a configuration of their own: `local-dir:<folder>` and `hf-hub:<org>/<name>`.

Both are open_clip's schemas. A folder holds what such a repository holds: open_clip_config.json, a file of weights and,
unless the model takes CLIP's own tokenizer, the files of its tokenizer. What open_clip would fetch or choose in silence
is resolved here to files, from the hub's cache first, so that a run needs the network at most once.

Nothing here imports torch, so that a refusal comes before the first job.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cutsew.errors import UserError, first_line, missing_package

FOLDER, HUB = "local-dir:", "hf-hub:"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OFFLINE = "teacher.kind: conse and student.kind: timm, as in config/offline.yaml, need no model hub"

_COPY = f"fill the cache ($HF_HOME) on a machine with one, or set {FOLDER}<folder> to a copy; {OFFLINE}"
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that open_clip gives to a model's weights, of which the hub has one."""

_USUAL = (*HUB_WEIGHTS, "open_clip_pytorch_model.pth", "model.safetensors", "model.safetensors.index.json")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SWITCHED_ON = ("1", "ON", "YES", "TRUE")

_described: dict[str, dict[str, Any]] = {}


def is_named(model: str) -> bool:
    """Check whether a model's name is a folder or a repository, whose weights come with it."""
    return model.startswith((FOLDER, HUB))


def read_config(model: str, setting: str) -> dict[str, Any]:
    """Return the content of a model's open_clip_config.json: model_cfg and, as a rule, preprocess_cfg.

    Args:
        model: `local-dir:<folder>` or `hf-hub:<org>/<name>`.
        setting: dotted name of the setting, for messages.

    Raises:
        UserError: no such folder or file, the hub cannot be reached, or a content that describes no model.

    """
    if model in _described:
        return {"model_cfg": _described[model]}
    path = (
        _folder(model, setting) / OPEN_CLIP_CONFIG
        if model.startswith(FOLDER)
        else _fetched(model, [OPEN_CLIP_CONFIG], setting)
    )
    if not path.is_file():
        raise UserError(
            f"{setting}: {path}: no such file; copy {OPEN_CLIP_CONFIG} of the model there, or name a model of open_clip"
            " and give the weights as pretrained"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        described = content["model_cfg"]
        sound = all(isinstance(described[part], dict) for part in ("vision_cfg", "text_cfg")) and described["embed_dim"]
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise UserError(f"{setting}: {path}: does not describe a model of open_clip (model_cfg); restore the file")
    return dict(content)


def known_config(model: str) -> dict[str, Any]:
    """Return a model's description (model_cfg) if it is on this machine, else nothing; no network is used."""
    path = (
        Path(model.removeprefix(FOLDER), OPEN_CLIP_CONFIG)
        if model.startswith(FOLDER)
        else cached(model.removeprefix(HUB), [OPEN_CLIP_CONFIG])
    )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"] if path is not None else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return config if isinstance(config, dict) else {}


def weights_file(model: str, setting: str) -> Path:
    """Return the file of a model's weights.

    Raises:
        UserError: there is none, or several, none with a standard name; or the hub cannot be reached.

    """
    if not model.startswith(FOLDER):
        return _fetched(model, HUB_WEIGHTS, setting)
    folder = _folder(model, setting)
    for name in _USUAL:
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(candidates) != 1:
        what = f"several files of weights ({', '.join(candidates)[:200]}), none" if candidates else "no file of weights"
        raise UserError(f"{setting}: {folder}: holds {what} named {HUB_WEIGHTS[0]}; give that name to the one you mean")
    return folder / candidates[0]


def local_files(model: str) -> list[Path]:
    """Return a model's files that are on this machine: configuration, weights and tokenizer. Nothing is fetched."""
    if model.startswith(FOLDER):
        folder = Path(model.removeprefix(FOLDER))
        try:
            weights = weights_file(model, "model")
        except UserError:
            return []
        return [weights, *(path for name in (OPEN_CLIP_CONFIG, *_TOKENIZER) if (path := folder / name).is_file())]
    paths = [cached(model.removeprefix(HUB), names) for names in ([OPEN_CLIP_CONFIG], HUB_WEIGHTS)]
    return [path for path in paths if path is not None]


def tokenizer_folder(model: str, weights: str | None) -> Path | None:
    """Return the local folder that holds a model's tokenizer: its own, or that of its local checkpoint; None if none.

    Args:
        model: open_clip's name or a schema's.
        weights: the path of a local checkpoint; None if there is none.

    """
    folder = Path(model.removeprefix(FOLDER)) if model.startswith(FOLDER) else Path(weights or "").parent
    local = model.startswith(FOLDER) or weights is not None
    return folder if local and any((folder / name).is_file() for name in _TOKENIZER) else None


def localized(config: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Return a model's description whose tokenizer and text tower are read from a folder, if it holds them.

    Args:
        config: model_cfg.
        folder: as from `tokenizer_folder`.

    """
    text = dict(config.get("text_cfg") or {})
    if text.get("hf_tokenizer_name"):
        text["tokenizer_kwargs"] = {**(text.get("tokenizer_kwargs") or {}), "trust_remote_code": False}
    if folder is not None:
        if text.get("hf_tokenizer_name"):
            text["hf_tokenizer_name"] = str(folder)
        if text.get("hf_model_name") and _describes_a_text_tower(folder / "config.json"):
            text["hf_model_name"] = str(folder)
    return {**config, "text_cfg": text}


def check(model: str, config: Mapping[str, Any], weights: str | None, setting: str) -> None:
    """Refuse a model whose text tower or tokenizer is known to fail, without loading either.

    Args:
        model: its name.
        config: model_cfg.
        weights: the path of its local checkpoint; None for weights that come by name.
        setting: dotted name of the setting, for messages.

    Raises:
        UserError: transformers is not installed, or a folder lacks the tokenizer.

    """
    text = config.get("text_cfg") or {}
    tokenizer = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if not tokenizer:
        return
    if find_spec("transformers") is None:
        raise missing_package(f"{setting}: the text tower of {model}", "transformers", "hub")
    if tokenizer_folder(model, weights) is not None:
        return
    if model.startswith(FOLDER):
        files = " or ".join(_TOKENIZER[:2])
        raise UserError(f"{setting}: {model}: holds no tokenizer ({files}); copy the files of {tokenizer} there")
    if hub_is_off() and cached(tokenizer, _TOKENIZER) is None:
        raise UserError(
            f"{setting}: {model}: its tokenizer, {tokenizer}, is not in the hub's cache, and HF_HUB_OFFLINE is set; put"
            f" the tokenizer's files next to a local checkpoint, or take {FOLDER}<folder>; {OFFLINE}"
        )


def hub_is_off() -> bool:
    """Check whether the environment forbids the hub's client to use the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in _SWITCHED_ON for name in names)


def cached(repository: str, names: Iterator[str] | list[str] | tuple[str, ...]) -> Path | None:
    """Return the first of some files of a repository that the hub's cache holds; no network is used."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - 0.3 s, for models by name only

    if _REPOSITORY.fullmatch(repository) is None:
        return None
    for name in names:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


@contextmanager
def described_as(model: str, config: Mapping[str, Any] | None) -> Iterator[None]:
    """Take a model's description from a student's model.yaml inside the block: folder and hub may be gone.

    Args:
        model: its name.
        config: model_cfg; None to read it from where the name says.

    """
    if config is not None:
        _described[model] = dict(config)
    try:
        yield
    finally:
        _described.pop(model, None)


def _folder(model: str, setting: str) -> Path:
    folder = Path(model.removeprefix(FOLDER))
    if not model.removeprefix(FOLDER) or not folder.is_dir():
        raise UserError(
            f"{setting}: {model}: no such folder; give the folder that holds {OPEN_CLIP_CONFIG} and the weights"
        )
    return folder


def _fetched(model: str, names: list[str] | tuple[str, ...], setting: str) -> Path:
    """Return the first of some files of a repository, from the cache or the hub."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    repository = model.removeprefix(HUB)
    if _REPOSITORY.fullmatch(repository) is None:
        raise UserError(f"{setting}: {model}: names no repository; write {HUB}<organization>/<name>")
    files = cached(repository, names)
    if files is not None:
        return files
    if hub_is_off():
        raise UserError(f"{setting}: {model}: {names[0]} is not in the hub's cache, and HF_HUB_OFFLINE is set; {_COPY}")
    reasons = []
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # the hub's client raises dozens of kinds
            reasons.append(first_line(error))
    raise UserError(f"{setting}: {model}: {names[0]} cannot be downloaded ({reasons[-1]}); without a network {_COPY}")


def _describes_a_text_tower(path: Path) -> bool:
    try:
        return "model_type" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False

"""Weights and descriptions of models, and archives: what could run code or land elsewhere."""

import argparse
import datetime
import enum
import functools
import gzip
import io
import json
import os
import pickle
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save, save_file

from cutsew.config.base import OpenClipModelConfig
from cutsew.config.named_models import check, read_config, weights_file
from cutsew.config.networks import TimmModelConfig
from cutsew.data.fetch import unpack
from cutsew.models.checkpoints import read_state_dict
from cutsew.models.preprocessing import of_open_clip, of_timm
from cutsew.models.student import read_model_spec
from trouble.case import ACCEPTED, REFUSED, Case

SETTING = "teacher.open_clip.pretrained"


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def saved(content: object, **options) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, stream, **options)
    return stream.getvalue()


STATE = {"a": torch.ones(2), "b.c": torch.zeros(3, 2)}


class Settings:
    """A class of a user's project, which is not installed where the weights are read."""

    def __init__(self):
        self.rate, self.items = np.float32(0.1), {"x": [1]}


class Level(enum.Enum):
    LOW = 1


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(STATE["a"])
        self.b = torch.nn.Module()
        self.b.register_buffer("c", STATE["b.c"])
        self.register_buffer("computed", torch.ones(1), persistent=False)
        self.plain = torch.ones(4)
        self.settings = Settings()

    def forward(self, x):
        return x * self.a.sum() + self.b.c.sum() + self.plain.sum()


def traced(half: bool = False) -> bytes:
    """TorchScript, which knows no buffers that are not persistent."""
    model = Model()
    del model._buffers["computed"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(model, torch.ones(1))
        stream = io.BytesIO()
        torch.jit.save(module.half() if half else module, stream)
    return stream.getvalue()


def rezipped(
    content: bytes, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", compression) as new:
        for name in old.namelist():
            part = change(name, old.read(name))
            if part is not None:
                new.writestr(name, part)
    return stream.getvalue()


def hostile(name: str, content: bytes) -> bytes:
    return pickle.dumps(Harm(), 2) if name.endswith("data.pkl") else content


def holding_itself() -> bytes:
    result = {"a": torch.ones(1)}
    result["model"] = result
    return saved(result)


def named(pattern: str) -> dict[str, torch.Tensor]:
    return {pattern.format(name): value for name, value in STATE.items()}


def starting_with(start: bytes) -> bytes:
    """Save weights with so much metadata that the length of the header, which comes first, has these lowest bytes."""
    size = int.from_bytes(start, "little")
    for length in range(0, 2**16, 8):
        content = save(STATE, {"note": "x" * length})
        if int.from_bytes(content[:8], "little") % 256 ** len(start) == size:
            return content
    raise AssertionError(start)


CALLED = r"has (posix|nt)\.system called on loading"
NO_STATE, DAMAGED = "holds no state dict", "damaged or truncated; download it again"
WEIGHTS = [
    ("a pickle that runs a program", "w.pt", lambda: saved({"a": torch.ones(1), "b": Harm()}), CALLED),
    ("an older pickle that runs a program", "w.pt", lambda: saved({"a": Harm()}, _use_new_zipfile_serialization=False), CALLED),
    ("a bare pickle that runs a program", "w.bin", lambda: pickle.dumps(Harm()), CALLED),
    ("TorchScript that runs a program", "w.pt", lambda: rezipped(traced(), hostile), CALLED),
    ("a pickle that evaluates text", "w.pt", lambda: pickle.dumps(eval, 2)[:-1] + b"(X\x01\x00\x00\x001tR.", r"builtins\.eval called|__builtin__\.eval called"),
    ("a member of an enum of a project", "w.pt", lambda: saved({"a": torch.ones(1), "b": functools.partial(min, 1), "c": Level.LOW}), r"models\.Level called"),
    ("a pickle of a long memo", "w.pt", lambda: b"\x80\x02}r\xff\xff\xff\x7f.", NO_STATE),
    ("a pickle of a long text", "w.pt", lambda: b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", DAMAGED),
    ("an empty pickle", "w.pt", lambda: b"", "is empty; download it again"),
    ("a pickle cut short", "w.pt", lambda: saved(STATE)[:200], DAMAGED),
    ("a pickle cut late", "w.pt", lambda: saved(STATE)[:-30], DAMAGED),
    ("an older pickle cut short", "w.pt", lambda: saved(STATE, _use_new_zipfile_serialization=False)[:-5], DAMAGED),
    ("a pickle with a flipped bit", "w.pt", lambda: saved({"a": torch.full((99,), 3.0)}).replace(b"\x40\x40\0\0", b"\x40\x41\0\0"), DAMAGED),
    ("without a storage", "w.pt", lambda: rezipped(saved(STATE), lambda name, part: None if name.endswith("data/1") else part), DAMAGED),
    ("with a short storage", "w.pt", lambda: rezipped(saved(STATE), lambda name, part: part[:-1] if name.endswith("data/1") else part), DAMAGED),
    ("of a big-endian machine", "w.pt", lambda: rezipped(saved(STATE), lambda name, part: b"big" if name.endswith("byteorder") else part), "big-endian"),
    ("quantized", "w.pt", lambda: saved({"a": torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)}), r"torch\.QInt8Storage; save them as float32"),
    ("an entry that holds itself", "w.pt", holding_itself, "damaged"),
    ("a pickle of a list", "w.pt", lambda: saved([1]), NO_STATE),
    ("a pickle of numbers", "w.pt", lambda: saved({"a": 1}), NO_STATE),
    ("an optimizer alone", "w.pt", lambda: saved({"optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}}), NO_STATE),
    ("two sets of weights", "w.pt", lambda: saved({"model": STATE, "model_ema": STATE}), r"several sets of weights \(model, model_ema\); save the one"),
    ("a name twice", "w.pt", lambda: saved(STATE | {"_orig_mod.a": torch.ones(2)}), "holds a twice"),
    ("an archive of something else", "w.pt", lambda: rezipped(saved(STATE), lambda name, part: None if name.endswith(".pkl") else part), "not one by torch.save"),
    ("a Git LFS pointer", "w.pt", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer, not the weights; run git lfs pull"),
    ("a Git LFS pointer", "w.safetensors", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ("a web page", "w.pt", lambda: b"\n<!DOCTYPE html><html>Sign in", "a web page, not the weights"),
    ("a web page", "w.safetensors", lambda: b"<html>", "a web page, not the weights"),
    ("a gzip archive", "w.pth", lambda: gzip.compress(b"x"), "an archive"),
    ("text", "w.bin", lambda: b"not found", "not a checkpoint that can be read"),
    ("empty", "w.safetensors", lambda: b"", "is empty; download it again"),
    ("cut short", "w.safetensors", lambda: save(STATE)[:-4], "not a complete safetensors file"),
    ("a header of exabytes", "w.safetensors", lambda: b"\xff" * 8 + b"{}", "not a complete safetensors file"),
    ("offsets outside", "w.safetensors", lambda: save(STATE).replace(b"[0,8]", b"[0,9]"), "not a complete safetensors file"),
    ("no index", "w.index.json", lambda: b"[]", "no index of weights"),
    ("an index of a file that is gone", "w.index.json", lambda: b'{"weight_map": {"a": "gone.safetensors"}}', r"gone\.safetensors, which it lists: no such file"),
    ("another suffix", "w.exe", lambda: b"MZ", "not a checkpoint that can be read"),
    ("missing", "w.pt", None, "no such file"),
]  # fmt: skip
SOUND = [
    ("safetensors", "w.safetensors", lambda: save(STATE)),
    ("safetensors of another name", "w.bin", lambda: save(STATE)),
    ("safetensors that start as a pickle does", "w.safetensors", lambda: starting_with(b"\x80")),
    ("safetensors that start as a web page does", "w.safetensors", lambda: starting_with(b" <")),
    ("a pickle named safetensors", "w.safetensors", lambda: saved(STATE)),
    ("of torch before 1.6", "w.pth.tar", lambda: saved({"state_dict": STATE, "best": np.float64(1)}, _use_new_zipfile_serialization=False)),
    ("compressed", "w.pt", lambda: rezipped(saved(STATE), lambda _, part: part, zipfile.ZIP_DEFLATED)),
    ("TorchScript", "w.pt", traced),
    ("TorchScript in half precision", "w.pt", lambda: traced(half=True)),
    ("a pickled module", "w.pt", lambda: saved(Model())),
    ("a pickled module, older", "w.pt", lambda: saved(Model(), _use_new_zipfile_serialization=False)),
    ("a checkpoint with a pickled module", "w.pt", lambda: saved({"model": Model(), "epoch": 1})),
    ("a NumPy number next to weights", "w.pt", lambda: saved({"state_dict": STATE, "best": np.float32(0.5), "curve": np.ones(3)})),
    ("a NumPy number among weights", "w.pt", lambda: saved(STATE | {"best": np.float64(0.5)})),
    ("arguments, paths and devices", "w.pt", lambda: saved({"model": STATE, "args": argparse.Namespace(at=Path("x"), to=torch.device("cpu"), when=datetime.datetime(2026, 1, 2)), "mine": Settings()})),
    ("an optimizer and random state", "w.pt", lambda: saved({"model": STATE, "optimizer": torch.optim.Adam(Model().parameters()).state_dict(), "rng": torch.get_rng_state(), "numpy": np.random.get_state()})),
    ("Lightning", "w.ckpt", lambda: saved({"state_dict": named("model.{}"), "hyper_parameters": {"lr": 1}, "loops": {}, "callbacks": {}})),
    ("compiled", "w.pt", lambda: saved(named("_orig_mod.{}"))),
    ("a compiled part", "w.pt", lambda: saved({"a": STATE["a"], "b._orig_mod.c": STATE["b.c"]})),
    ("parallel and compiled", "w.pt", lambda: saved({"model_state_dict": named("module._orig_mod.{}")})),
    ("wrapped twice", "w.pt", lambda: saved({"model": {"state_dict": named("module.model.{}")}})),
    ("averaged weights alone", "w.pt", lambda: saved({"ema": {"module": STATE, "decay": 0.9}})),
    ("an entry of another name", "w.pt", lambda: saved({"my_net": STATE, "epoch": 3})),
    ("half", "w.safetensors", lambda: save({name: value.half() for name, value in STATE.items()})),
    ("bfloat16", "w.pt", lambda: saved({name: value.bfloat16() for name, value in STATE.items()})),
    ("float64", "w.pt", lambda: saved({name: value.double() for name, value in STATE.items()})),
    ("a view of a storage", "w.pt", lambda: saved({"a": torch.arange(4.0).fill_(1)[1:3], "b.c": torch.zeros(2, 3).T})),
]  # fmt: skip


def weights() -> Iterator[Case]:
    for name, file, result, says in WEIGHTS:

        def act(folder: Path, file=file, made=result) -> str:
            if made is not None:
                (folder / file).write_bytes(made())
            os.chdir(folder)
            try:
                return str(read_state_dict(folder / file, SETTING))
            finally:
                assert not (folder / "harmed").exists()

        yield Case("models", f"weights {file[1:]}: {name}", REFUSED, rf"^{SETTING}: .*{file}: .*{says}", act)


def sound_weights() -> Iterator[Case]:
    for name, file, result in SOUND:

        def act(folder: Path, file=file, made=result) -> str:
            (folder / file).write_bytes(made())
            read = read_state_dict(folder / file, SETTING)
            return str(read.keys() == STATE.keys() and all(torch.equal(read[key].float(), STATE[key]) for key in STATE))

        yield Case("models", f"sound weights: {name}", ACCEPTED, "True", act)

    def shards(folder: Path) -> str:
        save_file({"a": STATE["a"]}, folder / "w-00001-of-00002.safetensors")
        torch.save({"b.c": STATE["b.c"]}, folder / "w-00002-of-00002.bin")
        places = {"a": "w-00001-of-00002.safetensors", "b.c": "w-00002-of-00002.bin"}
        (folder / "w.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return str(sorted(read_state_dict(folder / "w.safetensors.index.json", SETTING)))

    yield Case("models", "sound weights: shards", ACCEPTED, r"\['a', 'b.c'\]", shards)


HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
CONFIG = "open_clip_config.json"


def beside(images: object = None, **model) -> dict[str, str]:
    """Give an open_clip_config.json."""
    return {CONFIG: json.dumps({"preprocess_cfg": HALF if images is None else images, "model_cfg": model})}


OPEN_CLIP = [
    ("sound", "ViT-L-14", beside(quick_gelu=False), {}, None),
    ("a tag is named", "ViT-L-14", {}, {"tag": "openai"}, None),
    (
        "tags of two means",
        "ViT-L-14",
        {},
        {},
        r"ViT-L-14 differ in mean, std and quick_gelu; set .*\.tag to .*\(openai,",
    ),
    ("tags of two activations", "ViT-B-32", {}, {}, r"ViT-B-32 differ in quick_gelu; set .*\.quick_gelu"),
    ("no tags", "ViT-S-16", {}, {}, r"nothing gives its mean, std and interpolation; set .*\.preprocessing"),
    (
        "half a setting",
        "ViT-S-16",
        {},
        {"preprocessing": {"mean": [0.5] * 3}},
        "nothing gives its std and interpolation",
    ),
    ("an unknown tag", "RN50", {}, {"tag": "opnai"}, r"\.tag: RN50 has no weights opnai \(it has: openai"),
    ("a tag next to a tag", "RN50", {}, {"tag": "openai", "pretrained": "openai"}, r"\.tag: is for a local checkpoint"),
    (
        "a configuration of another model",
        "ViT-L-14",
        beside(embed_dim=512),
        {},
        "another model .*embed_dim is 512, not 768",
    ),
    ("a configuration cut short", "ViT-L-14", {CONFIG: '{"preprocess'}, {}, "cannot be read as JSON"),
    ("a configuration that is a list", "ViT-L-14", {CONFIG: "[]"}, {}, "is not a JSON object"),
    ("a configuration of words", "ViT-L-14", {CONFIG: '{"preprocess_cfg": "x"}'}, {}, "is not an object"),
    ("a mean of words", "ViT-L-14", beside(HALF | {"mean": ["x"] * 3}), {}, "mean is .* not three numbers"),
    ("a std of 0", "ViT-L-14", beside(HALF | {"std": [0, 1, 1]}), {}, "std is .* not three numbers"),
    ("a mean of NaN", "ViT-L-14", beside(HALF | {"mean": float("nan")}), {}, "mean is nan, not three numbers"),
    ("lanczos", "RN50", beside(HALF | {"interpolation": "lanczos"}), {}, "lanczos, which .* set .*interpolation"),
    (
        "a size that is no square",
        "RN50",
        beside(HALF | {"size": [224, 336]}),
        {},
        r"\[224, 336\], not that of a square",
    ),
]
TIMM = [
    ("a tag in the name", "resnet50.a1_in1k", {}, None),
    (
        "tags that differ",
        "resnet50",
        {},
        r"resnet50 differ in interpolation; set student\.timm\.model to .*resnet50\.a1_in1k",
    ),
    (
        "a configuration of another model",
        "resnet50",
        {"config.json": '{"architecture": "x", "pretrained_cfg": {}}'},
        "x, not",
    ),
    ("a configuration cut short", "resnet50", {"config.json": "{"}, "cannot be read as JSON"),
]


def preprocessing() -> Iterator[Case]:
    for name, model, files, more, says in OPEN_CLIP:

        def act(folder: Path, model=model, files=files, more=more) -> str:
            for file, content in {"w.pt": "", **files}.items():
                (folder / file).write_text(content)
            settings = OpenClipModelConfig.model_validate({"model": model, "pretrained": str(folder / "w.pt"), **more})
            return str(of_open_clip(settings, "teacher.open_clip"))

        outcome = ACCEPTED if says is None else REFUSED
        yield Case("models", f"preprocessing of open_clip: {name}", outcome, says or "mean", act)
    for name, model, files, says in TIMM:

        def find(folder: Path, model=model, files=files) -> str:
            for file, content in {"w.pt": "", **files}.items():
                (folder / file).write_text(content)
            return str(of_timm(TimmModelConfig(model=model, weights=str(folder / "w.pt"))))

        outcome = ACCEPTED if says is None else REFUSED
        yield Case("models", f"preprocessing of timm: {name}", outcome, says or "mean", find)


TEXT_TOWER = {"hf_tokenizer_name": "somebody/words"}
CONFIGURATION = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}
NAMED = [
    ("sound", {}, None),
    ("not there", {"open_clip_config.json": None, "open_clip_model.safetensors": None}, "no such folder"),
    ("without its configuration", {"open_clip_config.json": None}, r"open_clip_config\.json: no such file; copy"),
    ("a configuration cut short", {"open_clip_config.json": b'{"model_cfg": '}, "does not describe a model"),
    ("a configuration that is a list", {"open_clip_config.json": b"[]"}, "does not describe a model"),
    ("a configuration of another library", {"open_clip_config.json": b'{"model_cfg": {"embed_dim": 8}}'}, "does not describe a model"),
    ("a Git LFS pointer as configuration", {"open_clip_config.json": b"version https://git-lfs.github.com/spec/v1\n"}, "does not describe a model"),
    ("without weights", {"open_clip_model.safetensors": None}, "no file of weights"),
    ("weights of two names", {"open_clip_model.safetensors": None, "a.bin": b"", "b.pt": b""}, r"several files of weights \(a\.bin, b\.pt\)"),
    ("a tokenizer from elsewhere", {"open_clip_config.json": json.dumps({"model_cfg": {**CONFIGURATION["model_cfg"], "text_cfg": TEXT_TOWER}}).encode()}, "holds no tokenizer"),
]  # fmt: skip


def named_models() -> Iterator[Case]:
    for name, changes, says in NAMED:

        def act(folder: Path, changes=changes) -> str:
            files = {"open_clip_config.json": json.dumps(CONFIGURATION).encode(), "open_clip_model.safetensors": b""}
            for file, content in (files | changes).items():
                if content is not None:
                    (folder / "m").mkdir(exist_ok=True)
                    (folder / "m" / file).write_bytes(content)
            model = f"local-dir:{folder / 'm'}"
            check(model, read_config(model, SETTING)["model_cfg"], None, SETTING)
            return weights_file(model, SETTING).name

        outcome = ACCEPTED if says is None else REFUSED
        yield Case(
            "models", f"local-dir: {name}", outcome, rf"^{SETTING}: .*{says}" if says else "open_clip_model", act
        )
    for name in ("hf-hub:", "hf-hub:nobody", "hf-hub:a/../b", "hf-hub:../../etc/passwd", "local-dir:"):
        yield Case(
            "models",
            f"named {name}",
            REFUSED,
            f"^{SETTING}: {name}: (names no rep|no such folder)",
            lambda _, name=name: read_config(name, SETTING),
        )


DESCRIPTION = {
    "format": 1,
    "classes": ["cat", "dog"],
    "preprocessing": {"size": 8, "resize": "squash", "interpolation": "bilinear", **HALF},
    "backbone": {"weights_digest": "abc", "kind": "open_clip"},
    "head": "adapter",
    "adapter": {"channels": 4},
    "adapter_digest": "def",
}
DESCRIPTIONS = [
    ("a kind that is a list", {"backbone": {"weights_digest": "abc", "kind": ["timm"]}}, r"backbone\.kind: "),
    ("sound", {}, "classes"),
    ("another format", {"format": 2}, r"format: input should be 1"),
    ("no classes", {"classes": []}, r"classes: "),
    ("classes that are numbers", {"classes": [1, 2]}, r"classes\.0: "),
    ("a backbone that is a word", {"backbone": "x"}, r"backbone: "),
    ("a backbone without a digest", {"backbone": {}}, r"backbone\.weights_digest: is not set"),
    ("a backbone without a kind", {"backbone": {"weights_digest": "abc"}}, r"backbone\.kind: is not set"),
    ("an adapter of words", {"adapter": {"channels": "x"}}, r"adapter\.channels: "),
    ("an adapter of a billion channels", {"adapter": {"channels": 10**12}}, r"adapter\.channels: "),
    ("an adapter of NaN", {"adapter": {"channels": float("nan")}}, r"adapter\.channels: "),
    ("preprocessing without a mean", {"preprocessing": {"size": 8}}, r"preprocessing\.\w+: is not set"),
    (
        "pixels from 0 to 255",
        {"preprocessing": DESCRIPTION["preprocessing"] | {"mean": [123.7, 116.3, 103.5]}},
        r"preprocessing\.mean\.0: input should be less than or equal to 1",
    ),
    ("no weights", {"adapter_digest": None}, "has no weights"),
    ("thresholds of other classes", {"thresholds": {"rule": "x", "x": [0.5]}}, "thresholds: need one per class"),
    ("thresholds of 7", {"thresholds": {"rule": "x", "x": [7, 7]}}, "thresholds"),
    ("a rule that is not there", {"thresholds": {"rule": "y", "x": [0.5, 0.5]}}, "thresholds: the rule is not one"),
]


def descriptions() -> Iterator[Case]:
    for name, changes, says in DESCRIPTIONS:

        def act(folder: Path, changes=changes) -> str:
            (folder / "model.yaml").write_text(yaml.safe_dump(DESCRIPTION | changes))
            return str(read_model_spec(folder / "model.yaml"))

        outcome = ACCEPTED if name == "sound" else REFUSED
        yield Case(
            "models", f"model.yaml: {name}", outcome, says if outcome == ACCEPTED else rf"model\.yaml: .*{says}", act
        )
    for name, content in (
        ("empty", b""),
        ("a list", b"[1]"),
        ("a tag", b"!!python/object:os.x {}"),
        ("rubbish", b"\xff\0"),
    ):

        def read(folder: Path, content=content) -> str:
            (folder / "model.yaml").write_bytes(content)
            return str(read_model_spec(folder / "model.yaml"))

        yield Case("models", f"model.yaml: {name}", REFUSED, r"model\.yaml.*: not", read)


def tar(name: str = "a.jpg", **changes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with tarfile.open(folder / "a.tar", "w") as result:
            member = tarfile.TarInfo(name)
            member.size = 0 if changes else 4
            for key, value in changes.items():
                setattr(member, key, value)
            result.addfile(member, io.BytesIO(b"data"))
        return folder / "a.tar"

    return write


def zipped(name: str, mode: int = 0) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "a.zip", "w") as result:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            result.writestr(member, b"data")
        return folder / "a.zip"

    return write


def damaged(suffix: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"a{suffix}").write_bytes(content)
        return folder / f"a{suffix}"

    return write


OUTSIDE, NO_FILE, UNSOUND = "would land outside the folder", "is a link or a device", "not a sound archive"
ARCHIVES = [
    ("tar: sound", tar(), None),
    ("tar: ../ in a name", tar("../../x.jpg"), OUTSIDE),
    ("tar: an absolute name", tar("/tmp/x.jpg"), OUTSIDE),
    ("tar: ..\\ in a name", tar("..\\x.jpg"), OUTSIDE),
    ("tar: a drive", tar("C:/x.jpg"), OUTSIDE),
    ("tar: a link", tar(type=tarfile.SYMTYPE, linkname="/etc/passwd"), NO_FILE),
    ("tar: a hard link", tar(type=tarfile.LNKTYPE, linkname="/etc/passwd"), NO_FILE),
    ("tar: a device", tar(type=tarfile.CHRTYPE), NO_FILE),
    ("tar: a pipe", tar(type=tarfile.FIFOTYPE), NO_FILE),
    ("zip: ../ in a name", zipped("../../x.jpg"), OUTSIDE),
    ("zip: an absolute name", zipped("/tmp/x.jpg"), OUTSIDE),
    ("zip: a link", zipped("x.jpg", stat.S_IFLNK | 0o777), NO_FILE),
    ("tar: rubbish", damaged(".tar", b"rubbish" * 200), UNSOUND),
    ("tar.gz: cut short", damaged(".tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc"), UNSOUND),
    ("zip: rubbish", damaged(".zip", b"rubbish" * 200), UNSOUND),
    ("zip: empty", damaged(".zip", b""), UNSOUND),
]


def archives() -> Iterator[Case]:
    for name, write, says in ARCHIVES:

        def act(folder: Path, write=write) -> str:
            archive = write(folder)
            unpack(archive, folder / "unpacked")
            return str(sorted(path.name for path in (folder / "unpacked").rglob("*")))

        yield Case(
            "models",
            f"archive, {name}",
            REFUSED if says else ACCEPTED,
            rf"a\.(tar|zip).*{says}" if says else r"\['a\.jpg'\]",
            act,
        )


def cases() -> Iterator[Case]:
    for part in (weights, sound_weights, named_models, preprocessing, descriptions, archives):
        yield from part()

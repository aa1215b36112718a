"""Weights and descriptions of models, and archives: what could run code or land elsewhere."""

import io
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from cutsew.checkpoints import read_state_dict
from cutsew.data.fetch import unpack
from cutsew.description import read_description
from trouble.case import ACCEPTED, REFUSED, Case

SETTING = "teacher.open_clip.pretrained"


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


STATE = {"a": torch.ones(2), "b": torch.zeros(3)}
WAY_OUT = r"holds more than tensors, which could run code on loading; save its state_dict\(\) as \.safetensors"
WEIGHTS = [
    ("a pickle that runs a program", "w.pt", lambda: saved({"a": torch.ones(1), "b": Harm()}), WAY_OUT),
    ("a bare pickle that runs a program", "w.bin", lambda: pickle.dumps(Harm()), WAY_OUT),
    ("a pickled model", "w.pth", lambda: saved(torch.nn.Linear(2, 2)), WAY_OUT),
    ("an empty pickle", "w.pt", lambda: b"", "damaged"),
    ("a pickle cut short", "w.pt", lambda: saved(STATE)[:200], "damaged"),
    ("a pickle of a list", "w.pt", lambda: saved([1]), "holds no state dict"),
    ("a pickle of numbers", "w.pt", lambda: saved({"a": 1}), "holds no state dict"),
    ("empty", "w.safetensors", lambda: b"", "not a whole safetensors file"),
    ("cut short", "w.safetensors", lambda: save(STATE)[:-4], "not a whole safetensors file"),
    ("a header of exabytes", "w.safetensors", lambda: b"\xff" * 8 + b"{}", "not a whole safetensors file"),
    (
        "offsets outside",
        "w.safetensors",
        lambda: save(STATE).replace(b"[0,8]", b"[0,9]"),
        "not a whole safetensors file",
    ),
    ("a pickle of that name", "w.safetensors", lambda: saved(STATE), "not a whole safetensors file"),
    ("another suffix", "w.exe", lambda: b"MZ", "not a checkpoint that can be read"),
    ("missing", "w.pt", None, "no such file"),
]


def weights() -> Iterator[Case]:
    for name, file, made, says in WEIGHTS:

        def act(folder: Path, file=file, made=made) -> str:
            if made is not None:
                (folder / file).write_bytes(made())
            os.chdir(folder)
            try:
                return str(read_state_dict(folder / file, SETTING))
            finally:
                assert not (folder / "harmed").exists()

        yield Case("models", f"weights {file[1:]}: {name}", REFUSED, rf"^{SETTING}: .*{file}: .*{says}", act)


DESCRIPTION = {
    "format": 1,
    "classes": ["cat", "dog"],
    "preprocessing": {"size": 8},
    "backbone": {"weights_digest": "abc", "kind": "open_clip"},
    "adapter": {"channels": 4},
    "adapter_digest": "def",
}
DESCRIPTIONS = [
    ("sound", {}, "classes"),
    ("another format", {"format": 2}, r"format: input should be 1"),
    ("no classes", {"classes": []}, r"classes: "),
    ("classes that are numbers", {"classes": [1, 2]}, r"classes\.0: "),
    ("a backbone that is a word", {"backbone": "x"}, r"backbone: "),
    ("a backbone without a digest", {"backbone": {}}, r"backbone\.weights_digest: is not set"),
    ("an adapter of words", {"adapter": {"channels": "x"}}, r"adapter\.channels: "),
    ("an adapter of a billion channels", {"adapter": {"channels": 10**12}}, r"adapter\.channels: "),
    ("an adapter of NaN", {"adapter": {"channels": float("nan")}}, r"adapter\.channels: "),
    ("no weights", {"adapter_digest": None}, "names no weights"),
    ("thresholds of other classes", {"thresholds": {"rule": "x", "x": [0.5]}}, "thresholds: not one for each class"),
    ("thresholds of 7", {"thresholds": {"rule": "x", "x": [7, 7]}}, "thresholds"),
    ("a rule that is not there", {"thresholds": {"rule": "y", "x": [0.5, 0.5]}}, "thresholds: the rule is none"),
]


def descriptions() -> Iterator[Case]:
    for name, changes, says in DESCRIPTIONS:

        def act(folder: Path, changes=changes) -> str:
            (folder / "model.yaml").write_text(yaml.safe_dump(DESCRIPTION | changes))
            return str(read_description(folder / "model.yaml"))

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
            return str(read_description(folder / "model.yaml"))

        yield Case("models", f"model.yaml: {name}", REFUSED, r"model\.yaml: not", read)


def tar(name: str = "a.jpg", **changes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with tarfile.open(folder / "a.tar", "w") as made:
            member = tarfile.TarInfo(name)
            member.size = 0 if changes else 4
            for key, value in changes.items():
                setattr(member, key, value)
            made.addfile(member, io.BytesIO(b"data"))
        return folder / "a.tar"

    return write


def zipped(name: str, mode: int = 0) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "a.zip", "w") as made:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            made.writestr(member, b"data")
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
    for part in (weights, descriptions, archives):
        yield from part()

"""Tensors of files by torch.save and torch.jit.save, read without importing or calling anything that they name.

The pickle inside such a file is a program: it names functions and has them called. Here only the few calls that rebuild
a tensor are carried out, by code of this module. Objects of other classes become inert `Record`s, and a call of
anything that is not on a list of harmless constructors is refused. Formats: torch/serialization.py (zip, and the older
stream) and torch/csrc/jit/serialization (TorchScript).
"""

import errno
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of the two kinds of file."""

_Machine: Any = pickle._Unpickler  # the one in Python, which can be restricted
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEEPEST, _MOST_MODULES = 50, 20_000
_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "collections.defaultdict": lambda *_: {},
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.set": set,
}
_HARMLESS = re.compile(
    r"collections\.(Counter|deque)|builtins\.(frozenset|tuple|bytes|bytearray|complex|slice|range)"
    r"|_codecs\.encode|functools\.partial|uuid\.UUID|decimal\.Decimal|fractions\.Fraction|datetime\.\w+"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path|torch\.(device|Size)|torch\.serialization\._get_layout"
    r"|numpy\.(dtype|ndarray)|numpy\._?core\.multiarray\.(scalar|_reconstruct)|numpy\._?core\.numeric\._frombuffer"
    r"|numpy\.random\._pickle\.\w+"
)
"""Constructors of plain values, as they stand next to weights. They are not called either: a `Record` stands for it."""

_FIRST_ARGUMENT = re.compile(
    r"torch\._utils\._rebuild_parameter(_with_state)?|torch\.jit\._pickle\.(build_\w+list|restore_type_tag)"
)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_SCRIPTED = re.compile(r"^class (\w+)\(.*\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$", re.MULTILINE)


class UnreadableError(Exception):
    """Says why a file cannot be read, as the rest of a sentence about it."""


@dataclass(eq=False)
class Record:
    """Stands for an object of an unknown class, without its behavior.

    Attributes:
        kind: dotted name of the class.
        values: attributes and items by name.

    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)

    def __setitem__(self, key: object, value: object) -> None:
        self.values[str(key)] = value

    def append(self, item: object) -> None:
        """Keep an item of a list."""
        self.values[str(len(self.values))] = item

    add = append

    @property
    def is_module(self) -> bool:
        """Whether it was a torch.nn.Module."""
        return isinstance(self.values.get("_parameters"), dict)


@dataclass(frozen=True)
class _Global:
    """A name that a pickle wants to import."""

    name: str


@dataclass(frozen=True)
class _Storage:
    values: Tensor


def read(path: Path) -> object:
    """Read what a file holds: dicts and lists with tensors on the CPU, and a `Record` for each other object.

    A TorchScript archive gives the state dict of its module.

    Raises:
        UnreadableError: damaged, not a file of torch's, or one that has something called on loading.
        OSError: it cannot be read.

    """
    with path.open("rb") as stream:
        try:
            return _read_zip(stream) if stream.read(4) == ZIP else _read_stream(stream, path.stat().st_size)
        except UnreadableError:
            raise
        except Exception as error:  # damage is answered with nearly any, also with a seek to before the start
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise UnreadableError("is damaged or truncated; download it again") from None


def state_of(module: Record, registered: dict[str, set[str]] | None = None) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a pickled module by their dotted names.

    Args:
        module: as read from a pickle.
        registered: of a TorchScript archive, names of the parameters and buffers of each class.

    Raises:
        UnreadableError: modules that hold one another.

    """
    state: dict[str, Tensor] = {}
    pending, visited = [("", module)], 0
    while pending:
        prefix, result = pending.pop()
        visited += 1
        if visited > _MOST_MODULES or prefix.count(".") > _DEEPEST:
            raise UnreadableError("is damaged; download it again")
        values = result.values
        if result.is_module:
            transient = values.get("_non_persistent_buffers_set") or ()
            kinds = [values.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
            values = {name: part for kind in kinds if isinstance(kind, dict) for name, part in kind.items()}
            values = {name: part for name, part in values.items() if name not in transient}
        names = (registered or {}).get(result.kind, values.keys())
        for name, value in values.items():
            if isinstance(value, Tensor) and name in names:
                state[f"{prefix}{name}"] = value
            elif isinstance(value, Record):
                pending.append((f"{prefix}{name}.", value))
    return state


class _Unpickler(_Machine):  # type: ignore[misc]
    """A pickle machine that builds tensors, plain containers and `Record`s."""

    def __init__(self, stream: object, storage: Callable[[str, torch.dtype, int], Tensor] | None = None) -> None:
        super().__init__(stream, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> _Global:
        return _Global(f"{_PYTHON_2.get(module, module)}.{name}")

    def persistent_load(self, pid: Any) -> object:  # noqa: ANN401
        if pid[0] == "module":  # a class with its source, in the older format
            return pid[1]
        _, storage, key, _, count, *view = pid
        name = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", storage.name)
        if name is None or name[1] not in _DTYPES or any(view) or self._storage is None:
            raise UnreadableError(f"has tensors of dtype {storage.name[:100]}; save them as float32 or float16")
        return _Storage(self._storage(str(key), _DTYPES[name[1]], int(count)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], tuple(arguments))

    def load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = _instance(self.stack[-1])

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    target.values.update({str(key): value for key, value in part.items()})

    def _instantiate(self, kind: object, _: object) -> None:  # what protocols 0 and 1 call
        self.append(_instance(kind))

    dispatch = _Machine.dispatch | {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
    }
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4):  # classes by number
        del dispatch[_code[0]]


def _instance(kind: object) -> object:
    if not isinstance(kind, _Global):
        raise UnreadableError("is damaged; download it again")
    return _CONTAINERS[kind.name]() if kind.name in _CONTAINERS else Record(kind.name)


def _call(called: object, arguments: tuple[Any, ...]) -> object:
    """Do what a pickle's call is for, if it is one of the few that are known."""
    name = called.name if isinstance(called, _Global) else "something"
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        storage, offset, size, stride = arguments[:4]
        return torch.as_strided(storage.values, size, stride, offset)
    if name == "torch._tensor._rebuild_from_type_v2":  # of a subclass of Tensor: function, class, arguments, state
        return _call(arguments[0], tuple(arguments[2]))
    if _FIRST_ARGUMENT.fullmatch(name):
        return arguments[0]
    if name == "copyreg._reconstructor":
        return _instance(arguments[0])
    if name in _CONTAINERS:
        return _CONTAINERS[name](*arguments)
    if _HARMLESS.fullmatch(name):
        return Record(name)
    raise UnreadableError(
        f"has {name[:100]} called on loading, which could run arbitrary code and is refused; where it was saved, "
        "save its state_dict() as .safetensors"
    )


def _read_zip(stream: BinaryIO) -> object:
    with zipfile.ZipFile(stream) as archive:
        names = set(archive.namelist())
        root = next((name.removesuffix("data.pkl") for name in sorted(names) if name.endswith("/data.pkl")), None)
        if root is None:
            raise UnreadableError("is a zip archive, but not one by torch.save; give the file of weights itself")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UnreadableError("was saved on a big-endian machine; save it again on a little-endian one")
        storages: dict[tuple[str, torch.dtype], Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if (key, dtype) not in storages:
                content = bytearray(archive.read(f"{root}data/{key}"))  # writable, so that torch takes it as it is
                storages[key, dtype] = torch.frombuffer(content, dtype=dtype, count=count) if count else _empty(dtype)
            return storages[key, dtype]

        result = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), storage).load()
        if f"{root}constants.pkl" in names and isinstance(result, Record):
            return state_of(result, _registered(archive, f"{root}code/"))
        return result


def _registered(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Read from TorchScript's source which attributes of each class are parameters or buffers."""
    objects = {}
    for path in archive.namelist():
        if path.startswith(root) and path.endswith(".py"):
            module = path.removeprefix(root).removesuffix(".py").replace("/", ".")
            for name, *lists in _SCRIPTED.findall(archive.read(path).decode()):
                objects[f"{module}.{name}"] = {part for text in lists for part in re.findall(r'"([^"]*)"', text)}
    return objects


class _Bounded:
    """A stream that never reads beyond its end, whatever a damaged length says."""

    def __init__(self, stream: io.BufferedReader, size: int) -> None:
        self._stream, self.size = stream, size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, self.size - self._stream.tell()))


def _read_stream(stream: io.BufferedReader, size: int) -> object:
    """Read the format before torch 1.6: pickles, the last of which lists the storages that follow it."""
    stream.seek(0)
    bounded, storages = _Bounded(stream, size), dict[str, Tensor]()

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            if count * dtype.itemsize + sum(values.nbytes for values in storages.values()) > size:
                raise EOFError
            storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    first = _Unpickler(bounded).load()
    if first != _LEGACY_MAGIC:  # a pickle by itself
        return first
    _Unpickler(bounded).load()  # version of the protocol
    if not _Unpickler(bounded).load()["little_endian"]:
        raise UnreadableError("was saved on a big-endian machine; save it again on a little-endian one")
    result = _Unpickler(bounded, storage).load()
    listed = _Unpickler(bounded).load()
    if set(map(str, listed)) != storages.keys():
        raise EOFError
    for key in listed:
        values = storages[str(key)]
        content = memoryview(values.view(torch.uint8).numpy().data)
        if int.from_bytes(stream.read(8), "little") != values.numel() or stream.readinto(content) != len(content):
            raise EOFError
    return result


def _empty(dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype)

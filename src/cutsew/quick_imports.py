"""Importing large packages in less time: without collecting garbage, and without packages that they do not need."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UTILS = "torch._dynamo.utils"


@contextmanager
def quickly() -> Iterator[None]:
    """Import torchvision, timm or open_clip meanwhile in a second less: without the compiler, and uncollected."""
    with uncollected(), compiler_when_called():
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile, nor ever look for any among what came: classes and functions are there to stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Let a package, which others import where they find it, seem absent meanwhile, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def compiler_when_called() -> Iterator[None]:
    """Leave torch's compiler, a second to import, out of what is imported meanwhile: it comes when it is called.

    torchvision takes `is_compile_supported` from it, for RoIAlign on a GPU. timm marks functions with
    `torch.compiler.disable`, which imports it at once; torch marks its own with a decorator that does not. Any other
    name of the compiler is imported as ever.
    """
    import torch  # noqa: PLC0415 - whoever imports this module may do so for later
    import torch.compiler  # noqa: PLC0415

    if UTILS in sys.modules:
        yield
        return
    at_once, torch.compiler.disable = torch.compiler.disable, _disable
    sys.modules[UTILS] = stand_in = _stand_in()
    try:
        yield
    finally:
        torch.compiler.disable = at_once
        if sys.modules.get(UTILS) is stand_in:
            del sys.modules[UTILS]


def _disable(fn: Any = None, recursive: bool = True, **_: object) -> Any:  # noqa: ANN401, FBT001, FBT002
    """Do what `torch.compiler.disable` does, once `fn` is called."""
    from torch._compile import _disable_dynamo  # noqa: PLC0415

    return _disable_dynamo(fn, recursive)


def _stand_in() -> ModuleType:
    module: Any = ModuleType(UTILS)

    def real(name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        if sys.modules.get(UTILS) is module:
            del sys.modules[UTILS]
        return getattr(importlib.import_module(UTILS), name)

    def is_compile_supported(device_type: str) -> bool:
        return bool(real("is_compile_supported")(device_type))

    module.__getattr__ = real
    module.is_compile_supported = is_compile_supported
    return module  # type: ignore[no-any-return]

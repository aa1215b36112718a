"""A CUDA device that is not there.

`FakeTensor` reports cuda:0 and holds CPU data. While `fake_gpu` is open, every operator checks its operands' devices as
CUDA does, and copies, launches and synchronizations are counted. It cannot show what a real kernel computes, what a
real allocator does, or how fast anything is.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.cuda.amp.common
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from cutsew.runtime.device import tf32_allowed

torch.__future__.set_overwrite_module_params_on_conversion(True)
aten = torch.ops.aten
CUDA = torch.device("cuda:0")
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
}
SYNCHRONIZING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
}
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.convolution.default}


class DeviceMismatchError(RuntimeError):
    """An operator was given tensors on both devices."""


@dataclass
class FakeGpu:
    """What the fake device counts, and how it misbehaves.

    Attributes:
        counts: events: to_device, to_host, sync (the host waits: a blocking copy too), launch, empty_cache.
        most_rows: largest batch that a convolution has memory for; None for any.
        tf32: round operands of float32 products as TF32 tensor cores do, where torch allows them.

    """

    counts: Counter[str] = field(default_factory=Counter)
    most_rows: int | None = None
    tf32: bool = False
    pending: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """What copies to the host that nothing has waited for will write, and where."""

    def synchronize(self) -> None:
        """Finish all copies."""
        self.counts["sync"] += 1
        for target, values in self.pending:
            target.copy_(values)
        self.pending.clear()

    def copy(self, func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if func is aten.copy_.default:
            target, source = args[:2]
            if is_fake(target) != is_fake(source):
                self._count_copy(is_fake(target), args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            func(inner(target), inner(source), *args[2:], **kwargs)
            return target
        source, device = args[0], kwargs.get("device")
        on_gpu = is_fake(source) if device is None else torch.device(device).type == "cuda"
        if on_gpu != is_fake(source):
            self._count_copy(on_gpu, kwargs.get("non_blocking", False))
        copied = func(inner(source), **on_host(kwargs))
        if copied is inner(source):
            copied = copied.clone()
        if is_fake(source) and not on_gpu and kwargs.get("non_blocking", False):  # not there before something waits
            self.pending.append((copied, copied.clone()))
            copied.fill_(torch.nan if copied.is_floating_point() else 0)
        return FakeTensor(copied) if on_gpu else copied

    def _count_copy(self, to_device: bool, non_blocking: bool) -> None:
        self.counts["to_device" if to_device else "to_host"] += 1
        self.counts["sync"] += not non_blocking

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if func in (aten._to_copy.default, aten.copy_.default):
            return self.copy(func, args, kwargs)
        if func is aten.is_pinned.default:
            return False
        if func is aten._pin_memory.default:
            return args[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fake = any(is_fake(tensor) for tensor in tensors)
        if fake:
            self._check(func, args, tensors)
            self._count(func, args)
        device = kwargs.get("device")
        on_gpu = fake or (device is not None and torch.device(device).type == "cuda")
        plain = tree_map(inner, on_host(kwargs))
        operands = tree_map(inner, args)
        if on_gpu and self.tf32 and func in PRODUCTS and tf32_allowed()[0]:
            operands = tree_map(rounded, operands)
        result = func(*operands, **plain)
        if not on_gpu:
            return result
        written = {id(inner(tensor)): tensor for tensor in tensors} if func._schema.is_mutable else {}
        return tree_map(lambda x: written.get(id(x), FakeTensor(x)) if isinstance(x, Tensor) else x, result)

    def _check(self, func: Any, args: Any, tensors: list[Tensor]) -> None:  # noqa: ANN401
        on_host_too = [tensor for tensor in tensors if not is_fake(tensor) and tensor.dim()]
        if func in INDEXING:  # CUDA takes indices from the host, and copies them
            wrong = not is_fake(args[0]) or (len(args) > 2 and not is_fake(args[2]) and args[2].dim())
            for index in args[1]:
                if index is not None and not is_fake(index):
                    self._count_copy(to_device=True, non_blocking=False)
        else:
            wrong = bool(on_host_too)
        if wrong:
            shapes = [tuple(tensor.shape) for tensor in on_host_too]
            raise DeviceMismatchError(f"{func}: expected all tensors on one device; on the CPU: {shapes}")
        if func is aten.convolution.default and self.most_rows is not None and args[0].shape[0] > self.most_rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. (fake, {args[0].shape[0]} rows)")

    def _count(self, func: Any, args: Any) -> None:  # noqa: ANN401
        by_mask = func in INDEXING and any(index is not None and inner(index).dtype == torch.bool for index in args[1])
        self.counts["sync"] += func in SYNCHRONIZING or by_mask
        self.counts["launch"] += not func.is_view


class FakeTensor(Tensor):
    """A tensor on the fake device."""

    gpu: FakeGpu

    @staticmethod
    def __new__(cls, data: Tensor, requires_grad: bool = False) -> "FakeTensor":
        described = {"strides": data.stride(), "storage_offset": data.storage_offset(), "dtype": data.dtype}
        tensor = Tensor._make_wrapper_subclass(
            cls, data.size(), **described, layout=data.layout, device=torch.device("cpu"), requires_grad=requires_grad
        )
        tensor.data_on_host = data
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def cpu(self, memory_format: Any = None) -> Tensor:  # noqa: ANN401
        chosen = {} if memory_format is None else {"memory_format": memory_format}
        return aten._to_copy.default(self, device=torch.device("cpu"), **chosen)

    def cuda(self, *_args: Any, **_kwargs: Any) -> Tensor:  # noqa: ANN401
        return self

    def to(self, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:  # noqa: ANN401
        args, kwargs = tree_map(numbered, args), tree_map(numbered, kwargs)
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        device = device or CUDA
        laid_out = layout is None or self.is_contiguous(memory_format=layout)
        if device.type == "cuda" and dtype in (None, self.dtype) and laid_out and not copy:
            return self
        chosen = {"dtype": dtype, "memory_format": layout}
        chosen = {k: v for k, v in chosen.items() if v is not None}
        return aten._to_copy.default(self, device=device, non_blocking=non_blocking, **chosen)

    def tolist(self) -> Any:  # noqa: ANN401
        self.gpu.counts["sync"] += 1
        return self.data_on_host.tolist()

    def numpy(self, *_args: Any, **_kwargs: Any) -> Any:  # noqa: ANN401
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the host.")

    __array__ = numpy

    def __repr__(self) -> str:
        return f"FakeTensor({self.data_on_host!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401, ARG003
        return cls.gpu.run(func, args, kwargs or {})


def is_fake(value: object) -> bool:
    return isinstance(value, FakeTensor)


def inner(value: Any) -> Any:  # noqa: ANN401
    return value.data_on_host if isinstance(value, FakeTensor) else value


def on_host(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the arguments of an operator for the CPU, which runs it."""
    host = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    return host | ({"device": torch.device("cpu")} if host.get("device") is not None else {})


def numbered(value: Any) -> Any:  # noqa: ANN401
    """Give the device cuda its number."""
    if (isinstance(value, str) and value == "cuda") or (isinstance(value, torch.device) and value.type == "cuda"):
        return CUDA
    return value


def rounded(value: Any) -> Any:  # noqa: ANN401
    """Round float32 to the 10 bits of TF32's mantissa."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.dim() < 2:
        return value
    bits = value.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).reshape(value.shape)


class _Operators(TorchDispatchMode):
    """Sends factories such as torch.zeros(device="cuda") to the fake device."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401, ARG002
        return self.gpu.run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Does in Python what torch's C++ decides by looking for CUDA kernels."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401, ARG002
        kwargs = kwargs or {}
        if func is Tensor.tolist and is_fake(args[0]):
            return args[0].tolist()
        named = {k: numbered(v) if k == "device" else v for k, v in kwargs.items()}
        return func(*tree_map(numbered, args), **named)


class _Event:
    """Stands for torch.cuda.Event."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self._gpu.synchronize()


class _Autocast(torch.autocast):
    """Runs autocast("cuda") as the CPU's."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Let torch have one fake GPU inside the block."""
    gpu = FakeGpu()
    load, save, grads = torch.load, torch.save, []

    def enter(_self: object) -> None:  # tensor subclasses cannot be inference tensors
        grads.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)

    def leave(_self: object, *_error: object) -> None:
        torch.set_grad_enabled(grads.pop())

    def fake_load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        loaded = load(file, map_location="cpu", **kwargs)
        if map_location is None or torch.device(map_location).type != "cuda":
            return loaded
        return tree_map(lambda x: x.to("cuda") if isinstance(x, Tensor) else x, loaded)

    def fake_save(value: Any, file: Any, **kwargs: Any) -> None:  # noqa: ANN401
        gpu.counts["sync"] += sum(is_fake(leaf) for leaf in tree_leaves(value))
        save(tree_map(lambda x: inner(x).detach().clone() if isinstance(x, Tensor) else x, value), file, **kwargs)

    faces = {
        "is_available": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "Event": lambda: _Event(gpu),
        "synchronize": gpu.synchronize,
        "get_device_name": lambda *_: "Fake GPU",
        "is_bf16_supported": lambda *_, **__: True,
        "empty_cache": lambda: gpu.counts.update(["empty_cache"]),
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "manual_seed_all": lambda *_: None,
    }
    with contextlib.ExitStack() as stack:
        for name, face in faces.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, face))
        patches: list[tuple[Any, str, Any]] = [
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.inference_mode, "__enter__", enter),
            (torch.inference_mode, "__exit__", leave),
            (torch, "autocast", _Autocast),
            (torch, "load", fake_load),
            (torch, "save", fake_save),
        ]
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.object(FakeTensor, "gpu", gpu, create=True))
        stack.enter_context(_Operators(gpu))
        stack.enter_context(_Functions())
        yield gpu

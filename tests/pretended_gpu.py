"""A GPU for machines without one: its tensors are on the CPU, but may not meet others, as on a real GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
# Kernels that read from or write to the other device, and lookups, whose index may be on the CPU
CROSSING = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class _Memory:
    """Which storages are on the GPU. They are kept alive, so that no address is used twice."""

    def __init__(self) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.storages

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage


class _Kernels(TorchDispatchMode):
    """Refuses operations on tensors of both devices, and notes what those on the GPU return."""

    def __init__(self, memory: _Memory):
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_iter((args, kwargs or {})) if isinstance(x, Tensor)]
        name = func.overloadpacket.__name__
        on_gpu = [self.memory.holds(tensor) for tensor in tensors]
        foreign = [t for t, held in zip(tensors, on_gpu, strict=True) if not held and t.dim()]
        if any(on_gpu) and foreign and not (name in CROSSING and (on_gpu[0] or name == "copy_")):
            shapes = [
                (tuple(t.shape), "cuda" if held else "cpu") for t, held in zip(tensors, on_gpu, strict=True)
            ]
            raise RuntimeError(f"{name}: expected all tensors on one device, found {shapes}")
        result = func(*args, **(kwargs or {}))
        if on_gpu and (on_gpu[0] if name == "copy_" else any(on_gpu)):
            tree_map_only(Tensor, self.memory.add, result)
        return result


class _Calls(TorchFunctionMode):
    """Understands `device="cuda"`, `.to`, `.cpu` and `.device`; a GPU's tensor has no NumPy array."""

    def __init__(self, memory: _Memory):
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return GPU if self.memory.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return self.memory.holds(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and self.memory.holds(args[0]):
            raise TypeError("can't convert a tensor on cuda to numpy; use Tensor.cpu() first")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args[0], args[1:], kwargs)
        wanted = kwargs.get("device")
        to_gpu = wanted is not None and torch.device(wanted).type == "cuda"
        if to_gpu:
            kwargs["device"] = CPU
        elif func == Tensor.new_tensor:
            to_gpu = self.memory.holds(args[0])
        result = func(*args, **kwargs)
        if to_gpu:
            self.memory.add(result)
        return result

    def _moved(self, func: Any, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        target = {Tensor.cpu: CPU, Tensor.cuda: GPU}.get(func)
        kept = []
        for value in (*args, *kwargs.values()):
            if isinstance(value, (str, torch.device)):
                target = torch.device(value)
            elif isinstance(value, Tensor):
                target = GPU if self.memory.holds(value) else CPU
                kept.append(value.dtype)
            elif isinstance(value, torch.dtype):
                kept.append(value)
        here = GPU if self.memory.holds(tensor) else CPU
        to_gpu = (target or here).type == "cuda"
        if not to_gpu and here == CPU:
            return func(tensor, *args, **kwargs)
        result = tensor.to(*kept) if kept else tensor
        return result if to_gpu and here == GPU else _Move.apply(result, self.memory, to_gpu)


class _Move(torch.autograd.Function):
    """A copy on the other device, whose gradient is copied back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, memory: _Memory, to_gpu: bool) -> Tensor:
        ctx.memory, ctx.to_gpu = memory, to_gpu
        return _copy(tensor, memory, to_gpu)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _copy(gradient, ctx.memory, not ctx.to_gpu), None, None


def _copy(tensor: Tensor, memory: _Memory, to_gpu: bool) -> Tensor:
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
    if to_gpu:
        memory.add(copy)
    return copy


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Tensor], bool]]:
    """Let `compute_device` and PyTorch find a GPU; gives a function that tells whether a tensor is on it."""
    memory = _Memory()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    with _Calls(memory), _Kernels(memory):
        yield memory.holds

"""Counts of memory and arithmetic of code that runs on real tensors or on fake ones without storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


class LiveMemory(TorchDispatchMode):
    """Bytes of tensors that operations inside the `with` block created and that are still alive.

    Views share their base's storage and cost nothing. What a kernel allocates and frees inside one operation
    is not seen.

    Attributes:
        peak_bytes: largest total at any time.
        peak_other_bytes: largest total without gradients, see `watch_gradients`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = self.peak_other_bytes = 0
        self._live = self._gradients = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results."""
        result = func(*args, **(kwargs or {}))
        inputs = {_storage_id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage_id(tensor) not in inputs:
                self._add(tensor.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self._live)
        self.peak_other_bytes = max(self.peak_other_bytes, self._live - self._gradients)
        return result

    @contextmanager
    def watch_gradients(self, module: nn.Module) -> Iterator[None]:
        """Tell gradients of parameters apart from everything else inside the `with` block."""
        handles = [
            parameter.register_post_accumulate_grad_hook(self._count_gradient)
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._gradients += self._known.get(_storage_id(parameter.grad), 0)

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self._live += size
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._live -= self._known.pop(key)


def count_flops() -> FlopCounterMode:
    """Return PyTorch's counter, 2 per multiply-add, that also knows the attention kernels of the CPU."""
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
        },
    )


def _attention_flops(query: tuple, key: tuple, value: tuple, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(
    gradient: tuple, query: tuple, key: tuple, value: tuple, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata

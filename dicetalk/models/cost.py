"""Counts memory and arithmetic of code that runs on real tensors or on fake ones without storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


class CostMeter(TorchDispatchMode):
    """Memory and arithmetic of all operations inside the `with` block.

    Memory is the bytes of tensors that these operations created and that are still alive. Views share their
    base's storage and cost nothing. What a kernel allocates and frees inside one operation is not seen.
    Arithmetic is that of matrix products, convolutions and attention, by PyTorch's formulas.

    Attributes:
        flops: 2 per multiply-add.
        peak_bytes: largest memory at any time.
        peak_other_bytes: largest memory without gradients, see `watch_gradients`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.peak_bytes = self.peak_other_bytes = 0
        self._live = self._gradients = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: tuple, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, count its arithmetic and the storages of its results."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        if not _returns_alias(func):
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
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
            self._gradients += self._known.get(parameter.grad.untyped_storage()._cdata, 0)

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self._live += size
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._live -= self._known.pop(key)


@cache
def _returns_alias(func: Any) -> bool:
    """Whether an operation returns views or its own inputs."""
    return any(value.alias_info is not None for value in func._schema.returns)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


# PyTorch's table lacks the attention kernels of the CPU
_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}

"""Where to compute on this machine, on how many threads, and with which arithmetic."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import scipy.linalg  # noqa: F401  SciPy's own BLAS, which `fixed_threads` cannot bound before it is loaded
import torch
from threadpoolctl import threadpool_limits
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def fixed_threads(num_threads: int = 1) -> Iterator[None]:
    """Compute on as many threads as the code says, not the environment: the last bits depend on the number.

    How a matrix product or a decomposition is divided decides in which order it is summed. Inside, also as a
    decorator, NumPy, SciPy and OpenMP keep to one thread; afterwards everything is as before. The numbers are
    the process's, so blocks must not overlap in several threads; and of OpenMP each thread has its own, so
    one that is started inside still has to call `torch.set_num_threads`.

    Args:
        num_threads: PyTorch's.
    """
    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_device() -> torch.device:
    """Return this process's GPU, by `LOCAL_RANK` where a launcher started several, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def resolve_precision(setting: str) -> str:
    """Replace `auto` by `bf16` where the processor multiplies bfloat16 matrices itself, else by `no`.

    On a CPU that is the AMX unit (Intel Xeon since 2023); elsewhere bfloat16 is slower than float32.

    Args:
        setting: `auto`, `no`, `bf16` or `fp16`.

    Returns:
        `no`, `bf16` or `fp16`, as `accelerate` names them.
    """
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "no"


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Return a context for forward and backward passes in which attention's gradients are fast on `device`.

    On a CPU the fused backward pass of short sequences in bfloat16 takes about eight times as long as plain
    matrix products, which are used there; elsewhere PyTorch chooses.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def autocast(device: torch.device, setting: str) -> torch.autocast:
    """Return the autocast context of a resolved or unresolved setting on `device`."""
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    precision = resolve_precision(setting)
    return torch.autocast(device.type, dtypes[precision], enabled=precision != "no")
